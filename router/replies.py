"""From vectors to the bytes of a reply: changes when an output form does.

Vectors stay buffers throughout: numpy views them, orjson or base64 writes them; nothing loops over floats.
"""

import binascii
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from router.plan import MODEL
from router.schema import EmbeddingType
from workers.contract import Vector

_Floats = npt.NDArray[np.float32]


def embeddings_body(vectors: Sequence[Vector], form: EmbeddingType, multivector: bool) -> bytes:
    """The JSON of a reply to `/v1/embeddings`, one entry for each vector, in order."""
    encode = _ENCODERS[form]
    tokens = 0
    data: list[dict[str, Any]] = []
    for index, vector in enumerate(vectors):
        tokens += vector.tokens
        if multivector:
            rows = np.frombuffer(vector.data, np.float32).reshape(vector.shape)
            data.append({"object": "embeddings", "index": index, "embeddings": [encode(row) for row in rows]})
        else:
            values = np.frombuffer(vector.data, np.float32)
            data.append({"object": "embedding", "index": index, "embedding": encode(values)})
    return orjson.dumps(
        {
            "model": MODEL,
            "object": "list",
            "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
            "data": data,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _float(values: _Floats) -> _Floats:
    return values


def _base64(values: _Floats) -> str:
    return binascii.b2a_base64(values.data, newline=False).decode("ascii")


def _ubinary(values: _Floats) -> npt.NDArray[np.uint8]:
    return np.packbits(values > 0)


def _binary(values: _Floats) -> npt.NDArray[np.int8]:
    # The unsigned byte less 128, which is the same bits with the highest one turned.
    return (_ubinary(values) ^ 0x80).view(np.int8)


_ENCODERS: dict[EmbeddingType, Callable[[_Floats], Any]] = {
    "float": _float,
    "base64": _base64,
    "ubinary": _ubinary,
    "binary": _binary,
}
