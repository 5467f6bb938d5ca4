"""Encodes vectors into the body of a reply: float, base64, binary, ubinary or .npy.

Vectors stay buffers: numpy views them, and orjson or base64 writes them. Nothing loops over floats in Python.
"""

import binascii
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from triptych.router.api.schema import EmbeddingType
from triptych.workers.shared.contract import Vector

# Size of the pieces of a large body. Encoding that much as JSON floats takes about three milliseconds.
PIECE_BYTES = 256 << 10
# Rows of a multi-vector that are encoded in one step.
_ROWS = 128

_Floats = npt.NDArray[np.float32]


def embeddings_body(
    vectors: list[Vector], form: EmbeddingType, multivector: bool, model: str
) -> Iterator[bytes]:
    """The JSON of a reply to `/v1/embeddings`, in pieces: one entry for each input, in order.

    The vector [chunks, d] of a document gives one entry for each chunk. Empties `vectors`, so that each can
    be freed when it is encoded.
    """
    tokens = sum(vector.tokens for vector in vectors)
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    head = orjson.dumps({"model": model, "object": "list", "usage": usage})
    entries = (_multivectors if multivector else _single_vectors)(vectors, _ENCODERS[form])
    return in_pieces(b'%s,"data":[' % head[:-1], entries, b"]}")


def in_pieces(head: bytes, parts: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    """Join `head`, `parts` and `tail` into pieces of about `PIECE_BYTES`."""
    waiting = [head]
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    waiting.append(tail)
    yield b"".join(waiting)


def _single_vectors(vectors: list[Vector], encode: "_Encoder") -> Iterator[bytes]:
    index = 0
    for rows, _ in _emptied(vectors):
        for row in rows:
            comma = b"," if index else b""
            yield b'%b{"object":"embedding","index":%d,"embedding":%b}' % (comma, index, _json(encode(row)))
            index += 1


def _multivectors(vectors: list[Vector], encode: "_Encoder") -> Iterator[bytes]:
    for index, (rows, vector) in enumerate(_emptied(vectors)):
        yield b'%b{"object":"embeddings","index":%d,"embeddings":[' % (b"," if index else b"", index)
        for at in range(0, len(rows), _ROWS):
            embeddings = [encode(row) for row in rows[at : at + _ROWS]]
            yield (b"," if at else b"") + _json(embeddings)[1:-1]
        yield b"]" if vector.tokenized is None else b'],"tokenized_input":%b' % _json(vector.tokenized)
        yield b"}"


def _emptied(vectors: list[Vector]) -> Iterator[tuple[_Floats, Vector]]:
    """Each vector as a matrix of rows, taken out of the list."""
    vectors.reverse()
    while vectors:
        vector = vectors.pop()
        yield np.frombuffer(vector.data, np.float32).reshape(-1, vector.shape[-1]), vector


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def npy_body(vectors: Sequence[Vector], dtype: Literal["float32", "float16"]) -> bytes:
    """All vectors as one .npy matrix [n, d], little-endian."""
    data = b"".join(vector.data for vector in vectors)
    matrix = np.frombuffer(data, "<f4").reshape(-1, vectors[0].shape[-1])
    buffer = io.BytesIO()
    np.save(buffer, matrix.astype("<f2") if dtype == "float16" else matrix)
    return buffer.getvalue()


def _ubinary(values: _Floats) -> npt.NDArray[np.uint8]:
    return np.packbits(values > 0)


def _binary(values: _Floats) -> npt.NDArray[np.int8]:
    # The unsigned byte minus 128: the same bits with the highest one flipped.
    return (_ubinary(values) ^ 0x80).view(np.int8)


_Encoder = Callable[[_Floats], Any]
_ENCODERS: dict[EmbeddingType, _Encoder] = {
    "float": lambda values: values,
    "base64": lambda values: binascii.b2a_base64(values.data, newline=False).decode("ascii"),
    "ubinary": _ubinary,
    "binary": _binary,
}
