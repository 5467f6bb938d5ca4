"""Encodes vectors into the body of a reply: float, base64, binary, ubinary or .npy.

Vectors stay buffers: numpy views them, and orjson or base64 writes them. Nothing loops over floats in Python.
"""

import binascii
import io
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from router.api.plan import MODEL
from router.api.schema import EmbeddingType
from workers.shared.contract import Vector

# Encoding so many as JSON floats takes about three milliseconds.
VALUES_AT_A_TIME = 1 << 15

_Floats = npt.NDArray[np.float32]


def embeddings_body(
    vectors: Sequence[Vector], form: EmbeddingType, multivector: bool
) -> Generator[None, None, bytes]:
    """The JSON of a reply to `/v1/embeddings`: one entry for each input, in order.

    The vector [chunks, d] of a document gives one entry for each chunk. Yields after about `VALUES_AT_A_TIME`
    values, so that a large reply does not block the event loop.
    """
    encode = _ENCODERS[form]
    tokens = count = values = 0
    parts: list[bytes] = []
    data: list[dict[str, Any]] = []
    for vector in vectors:
        if values > VALUES_AT_A_TIME:
            parts.append(_entries(data))
            data, values = [], 0
            yield
        tokens += vector.tokens
        rows = np.frombuffer(vector.data, np.float32).reshape(-1, vector.shape[-1])
        values += rows.size
        if multivector:
            embeddings = [encode(row) for row in rows]
            entry = {"object": "embeddings", "index": count, "embeddings": embeddings}
            if vector.tokenized is not None:
                entry["tokenized_input"] = vector.tokenized
            data.append(entry)
            count += 1
        else:
            data += [
                {"object": "embedding", "index": index, "embedding": encode(row)}
                for index, row in enumerate(rows, count)
            ]
            count += len(rows)
    head = {
        "model": MODEL,
        "object": "list",
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
    }
    return b'%s,"data":[%s]}' % (orjson.dumps(head)[:-1], b",".join([*parts, _entries(data)]))


def _entries(data: list[dict[str, Any]]) -> bytes:
    """The elements of a JSON array, without its brackets."""
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def npy_body(vectors: Sequence[Vector], dtype: Literal["float32", "float16"]) -> bytes:
    """All vectors as one .npy matrix [n, d], little-endian."""
    data = b"".join(vector.data for vector in vectors)
    matrix = np.frombuffer(data, "<f4").reshape(-1, vectors[0].shape[-1])
    buffer = io.BytesIO()
    np.save(buffer, matrix.astype("<f2") if dtype == "float16" else matrix)
    return buffer.getvalue()


def _float(values: _Floats) -> _Floats:
    return values


def _base64(values: _Floats) -> str:
    return binascii.b2a_base64(values.data, newline=False).decode("ascii")


def _ubinary(values: _Floats) -> npt.NDArray[np.uint8]:
    return np.packbits(values > 0)


def _binary(values: _Floats) -> npt.NDArray[np.int8]:
    # The unsigned byte minus 128: the same bits with the highest one flipped.
    return (_ubinary(values) ^ 0x80).view(np.int8)


_ENCODERS: dict[EmbeddingType, Callable[[_Floats], Any]] = {
    "float": _float,
    "base64": _base64,
    "ubinary": _ubinary,
    "binary": _binary,
}
