"""Requests: accepted forms, and the errors of wrong fields."""

import base64
import json
from typing import Any

import pytest

from tests.unit.router.catalogs import parse_request
from triptych.router.api.schema import EmbeddingRequest
from triptych.router.errors import Invalid

IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
URI = f"data:image/png;base64,{IMAGE}"


def parse(**fields: Any) -> EmbeddingRequest:
    return parse_request(json.dumps(fields).encode())


def wrong_fields(body: bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse_request(body)
    return [error["field"] for error in caught.value.errors]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "body -> input"),
    ({"input": None}, "body -> input"),
    ({"input": []}, "body -> input"),
    ({"input": [1, 2, 3]}, "body -> input"),
    ({"input": ["a", None]}, "body -> input -> 1"),
    ({"input": {}}, "body -> input"),
    ({"input": [{"txt": "a"}]}, "body -> input -> 0"),
    ({"input": [{"text": None}]}, "body -> input -> 0"),
    ({"input": ["a", {"text": "a", "image": IMAGE}]}, "body -> input -> 1"),
    ({"input": {"text": 5}}, "body -> input -> text"),
    ({"input": ["a", {"image": ["x"]}]}, "body -> input -> 1 -> image"),
    ({"input": {"image": IMAGE, "task": "x"}}, "body -> input -> task"),
    ({"input": {"pdf": "JVBERi0=", "text": "a"}}, "body -> input"),
    ({"input": [{"pdf": 5}]}, "body -> input -> 0 -> pdf"),
    ({"input": "a", "late_chunking": True, "return_multivector": True}, "body -> late_chunking"),
    ({"input": "a", "return_tokenized_input": True}, "body -> return_tokenized_input"),
    ({"input": "a", "model": 4}, "body -> model"),
    ({"input": "a", "task": ["code.query"]}, "body -> task"),
    ({"input": "a", "dimensions": 2049}, "body -> dimensions"),
    ({"input": "a", "dimensions": True}, "body -> dimensions"),
    ({"input": "a", "dimensions": 128, "return_multivector": True}, "body -> dimensions"),
    ({"input": "a", "embedding_type": []}, "body -> embedding_type"),
    ({"input": "a", "embedding_type": ["float", "base64"]}, "body -> embedding_type"),
    ({"input": "a", "normalized": "perhaps"}, "body -> normalized"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert wrong_fields(json.dumps(fields).encode()) == [field]


@pytest.mark.parametrize(
    ("field", "alias", "right", "wrong"),
    [
        ("task", "task_type", "code.query", "retrieval"),
        ("embedding_type", "encoding_type", "base64", "int8"),
        ("embedding_type", "encoding_format", "base64", "int8"),
        ("dimensions", "output_dimensionality", 128, 0),
        ("dimensions", "output_dimension", 128, 0),
        ("truncate", "truncation", True, "perhaps"),
    ],
)
def test_alias_sets_its_field(field: str, alias: str, right: object, wrong: object) -> None:
    assert getattr(parse(input="a", **{alias: right}), field) == right
    assert getattr(parse(input="a", **{alias: wrong, field: right}), field) == right
    assert getattr(parse(input="a", **{alias: right, field: None}), field) == right
    assert wrong_fields(json.dumps({"input": "a", alias: wrong}).encode()) == [f"body -> {alias}"]


def test_all_errors_are_reported() -> None:
    body = {
        "input": ["a", {"image": 5}, {"text": "a", "task": "x"}],
        "dimensions": 0,
        "embedding_type": "x",
    }
    with pytest.raises(Invalid) as caught:
        parse(**body)
    assert {error["field"] for error in caught.value.errors} == {
        "body -> input -> 1 -> image",
        "body -> input -> 2 -> task",
        "body -> dimensions",
        "body -> embedding_type",
    }
    first = caught.value.errors[0]
    assert caught.value.detail == f"{first['field']}: {first['message']} (and 3 more)"


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"5"])
def test_body_must_be_an_object(body: bytes) -> None:
    assert wrong_fields(body) == ["body"]


@pytest.mark.parametrize(
    "value",
    [
        *("a text", "", URI, {"text": "a"}, {"text": ""}),
        *({"image": IMAGE}, {"image": URI}, {"url": URI}, {"bytes": IMAGE}),
        *({"text": "a", "image": None}, {"text": "a", "task": "code.passage"}),
        {"text": "a", "title": "ignored"},
    ],
)
def test_input_alone_or_in_a_list(value: object) -> None:
    alone, listed = parse(input=value).input, parse(input=[value]).input
    assert isinstance(listed, list)
    assert listed == [alone]
    mixed = parse(input=["first", value, {"text": "last"}]).input
    assert isinstance(mixed, list)
    assert mixed[1] == alone


def test_null_means_default() -> None:
    absent = parse(input="a")
    null = parse(input="a", **{field: None for field in EmbeddingRequest.model_fields if field != "input"})
    assert absent == null


def test_unknown_fields_are_ignored() -> None:
    known = {"input": "a", "task": "code.query"}
    assert parse(**known, user="me", seed=5, nested={"a": [1]}) == parse(**known)
