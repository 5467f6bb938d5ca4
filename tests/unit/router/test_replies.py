"""Encoding of replies, compared with independent computations."""

import base64
import json
import struct
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triptych.router.api.reply_bodies import PIECE_BYTES, embeddings_body
from triptych.router.api.schema import EmbeddingType
from triptych.workers.shared.contract import Vector

FORMS: tuple[EmbeddingType, ...] = get_args(EmbeddingType)
VALUES = [0.5, -0.25, 0.0, 1e-7, -1.0, 3.0, -0.0, 0.125, -2.0, 7.0]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def dense(values: list[float], tokens: int = 5) -> Vector:
    return Vector(0, tokens, (len(values),), struct.pack(f"<{len(values)}f", *values))


def rows(matrix: list[list[float]], tokens: int = 5) -> Vector:
    flat = [value for row in matrix for value in row]
    return Vector(0, tokens, (len(matrix), len(matrix[0])), struct.pack(f"<{len(flat)}f", *flat))


def reply(vectors: list[Vector], form: EmbeddingType = "float", multivector: bool = False) -> dict[str, Any]:
    return json.loads(b"".join(embeddings_body(vectors, form, multivector, "some-model")))


def embedding(values: list[float], form: EmbeddingType) -> Any:
    return reply([dense(values)], form)["data"][0]["embedding"]


def bits(values: list[float]) -> list[int]:
    """Eight signs per byte, the first in the highest bit; missing ones are 0."""
    signs = [value > 0 for value in values]
    signs += [False] * (-len(signs) % 8)
    return [sum(signs[at + bit] << (7 - bit) for bit in range(8)) for at in range(0, len(signs), 8)]


def test_reply_shape() -> None:
    body = reply([dense(VALUES, tokens=4), dense(VALUES, tokens=11)])
    assert body["model"] == "some-model"
    assert body["object"] == "list"
    assert body["usage"] == {"total_tokens": 15, "prompt_tokens": 15}
    assert set(body) == {"model", "object", "usage", "data"}
    assert [entry["index"] for entry in body["data"]] == [0, 1]
    assert {entry["object"] for entry in body["data"]} == {"embedding"}


@given(st.lists(floats, min_size=1, max_size=40))
def test_float_round_trips(values: list[float]) -> None:
    found = embedding(values, "float")
    assert struct.pack(f"<{len(values)}f", *found) == struct.pack(f"<{len(values)}f", *values)


@given(st.lists(floats, min_size=1, max_size=40))
def test_base64_is_little_endian_float32(values: list[float]) -> None:
    assert base64.b64decode(embedding(values, "base64"), validate=True) == dense(values).data


@given(st.lists(floats, min_size=1, max_size=40))
@example([0.0, -0.0, -1.0, -1e-45, 0.0, 0.0, 0.0, 0.0])
@example([1.0] * 2048)
def test_binary_forms_pack_bits(values: list[float]) -> None:
    assert embedding(values, "ubinary") == bits(values)
    assert embedding(values, "binary") == [byte - 128 for byte in bits(values)]


MATRIX = [VALUES[:8], [-value for value in VALUES[:8]], [1.0] * 8]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3])
def test_multivector_is_a_list_of_rows(form: EmbeddingType, count: int) -> None:
    matrix = MATRIX[:count]
    [entry] = reply([rows(matrix)], form, multivector=True)["data"]
    embeddings = [embedding(row, form) for row in matrix]
    assert entry == {"object": "embeddings", "index": 0, "embeddings": embeddings}


@pytest.mark.parametrize("multivector", [False, True])
def test_large_reply_comes_in_pieces(multivector: bool) -> None:
    values = np.arange(2048, dtype=np.float32)
    shape = (16, 128) if multivector else (2048,)
    vectors = [Vector(number, 1, shape, (values + number).tobytes()) for number in range(100)]
    pieces = list(embeddings_body(vectors.copy(), "float", multivector, "some-model"))
    assert len(pieces) > 2
    assert max(map(len, pieces)) < 2 * PIECE_BYTES
    data = json.loads(b"".join(pieces))["data"]
    assert [entry["index"] for entry in data] == list(range(100))
    if not multivector:
        assert [entry["embedding"][1] for entry in data] == [1.0 + number for number in range(100)]
    assert len(list(embeddings_body(vectors[:1], "float", multivector, "some-model"))) == 1


def test_large_document_comes_in_pieces() -> None:
    """One item may have hundreds of vectors."""
    for multivector in (False, True):
        document = rows([[0.5] * 128] * 4000)
        pieces = list(embeddings_body([document], "float", multivector, "some-model"))
        assert max(map(len, pieces)) < 2 * PIECE_BYTES
        assert len(pieces) > 4
