"""What is sent in each dialect, and how replies are read."""

import base64
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from triptych.loadtests.dialects import PREFIXES, Dialect, Target, Unreadable, Vector, clocks, pool_of
from triptych.loadtests.scenario import TASKS, Encoding, Flow, Request
from triptych.workers.shared.families import V4

HERE = "http://127.0.0.1:8080"


def spoken(name: str = "jina", key: str | None = None) -> Dialect:
    return Dialect(Target(addresses={"": HERE}, dialect=name, model="jina-embeddings-v4", key=key))  # type: ignore[arg-type]


def flow_of(**fields: Any) -> Flow:
    return Flow(**{"name": "query", "task": "retrieval.query"} | fields)


def asked(inputs: Sequence[str] = ("a", "b"), **fields: Any) -> Request:
    return Request(flow_of(**fields), list(inputs))


def sent(request: Request, name: str = "jina") -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(spoken(name).encode(request).body)
    return document


def written(row: Vector, encoding: Encoding) -> Any:
    return row.tolist() if encoding == "float" else base64.b64encode(row.tobytes()).decode()


def body(*entries: Any, **fields: Any) -> bytes:
    return orjson.dumps({"data": entries, "usage": {"total_tokens": 7}} | fields)


def test_openai_and_vllm_bodies() -> None:
    plain = {
        "model": "jina-embeddings-v4",
        "input": ["Query: a", "Query: b"],
        "encoding_format": "float",
        "dimensions": 64,
    }
    request = asked(encoding="float", dimensions=64)
    assert sent(request, "openai") == plain
    assert sent(request, "vllm") == plain | {"add_special_tokens": False}


@pytest.mark.parametrize("task", TASKS)
def test_prefixes_and_pools_match_the_service(task: Any) -> None:
    pool, role = V4.routes[task]
    assert pool_of(task) == pool
    assert PREFIXES[task] == V4.prefixes[role]


def test_each_pool_has_its_address() -> None:
    target = {"code": "https://code.example/api/", "": "http://all.example"}
    for name in ("jina", "openai", "vllm"):
        both = Dialect(Target(addresses=target, dialect=name, model="m", key="secret"))  # type: ignore[arg-type]
        call = both.encode(asked(task="code.passage", headers={"x-priority": "bulk"}))
        assert call.url == "https://code.example/api/v1/embeddings"
        assert (call.headers["Authorization"], call.headers["x-priority"]) == ("Bearer secret", "bulk")
        assert both.encode(asked(task="text-matching")).url == "http://all.example/v1/embeddings"


def test_missing_pool_is_named() -> None:
    with pytest.raises(ValueError, match="no address for text-matching, code"):
        Dialect(Target(addresses={"retrieval": HERE}, dialect="vllm", model="m"))


@pytest.mark.parametrize("name", ["openai", "vllm"])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "rerank"}, "rerank"),
        ({"multivector": True}, "multivector"),
        ({"late_chunking": True}, "late_chunking"),
        ({"images": 0.5}, "images"),
    ],
)
def test_unsupported_request_has_a_reason(name: str, fields: dict[str, Any], reason: str) -> None:
    assert reason in (spoken(name).unsupported(flow_of(**fields)) or "")
    assert spoken().unsupported(flow_of(**fields)) is None


@given(
    vectors=array_shapes(min_dims=3, max_dims=3, max_side=9).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.floats(-1, 1, width=32))
    ),
    encoding=st.sampled_from(["base64", "float"]),
    name=st.sampled_from(["jina", "openai", "vllm"]),
    multivector=st.booleans(),
)
def test_vectors_are_read_exactly(vectors: Vector, encoding: Encoding, name: str, multivector: bool) -> None:
    rights = list(vectors) if multivector else [matrix[0] for matrix in vectors]
    entries = [
        {"index": index, "embeddings": [written(row, encoding) for row in right]}
        if multivector
        else {"index": index, "embedding": written(right, encoding)}
        for index, right in enumerate(rights)
    ]
    request = asked(inputs=["a"] * len(rights), encoding=encoding, multivector=multivector)
    reply = spoken(name).decode(request, body(*entries))
    assert (reply.indexes, reply.tokens) == (list(range(len(rights))), 7)
    for read, right in zip(reply.vectors, rights, strict=True):
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, right)


GOOD = {"index": 0, "embedding": "AACAPw=="}


@pytest.mark.parametrize(
    ("content", "fields", "says"),
    [
        (b"<html>", {}, "JSON"),
        (b"[]", {}, "list"),
        (orjson.dumps({"data": None}), {}, "NoneType"),
        (body({"embedding": "AACAPw=="}), {}, "'index'"),
        (body({"index": None, "embedding": "AACAPw=="}), {}, "index"),
        (body({"index": 0, "embedding": [1.0]}), {}, "base64"),
        (body({"index": 0, "embedding": "AACA"}), {}, "multiple"),
        (body({"index": 0, "embedding": [1e300]}), {"encoding": "float"}, "too large"),
        (body(GOOD), {"multivector": True}, "'embeddings'"),
        (body({"index": 0, "embeddings": []}), {"multivector": True}, "rows"),
        (
            body({"index": 0, "embeddings": [[1.0, 0.0, 0.0], [1.0]]}),
            {"multivector": True, "encoding": "float"},
            "rows",
        ),
        (orjson.dumps({"results": [{"index": 0}]}), {"kind": "rerank"}, "'relevance_score'"),
    ],
)
def test_malformed_body_is_unreadable(content: bytes, fields: dict[str, Any], says: str) -> None:
    for name in ("jina", "openai", "vllm"):
        with pytest.raises(Unreadable, match=says):
            spoken(name).decode(asked(**fields), content)


@pytest.mark.parametrize(
    ("usage", "promised", "not_promised"),
    [
        ({"total_tokens": 9, "prompt_tokens": 5}, 9, 9),
        ({"prompt_tokens": 5}, 5, 5),
        ({"total_tokens": 0, "prompt_tokens": 0}, 0, None),
        ({"total_tokens": "9"}, 0, None),
        ({}, 0, None),
        (None, 0, None),
    ],
)
def test_missing_token_count(usage: Any, promised: int, not_promised: int | None) -> None:
    content = body(GOOD, usage=usage)
    for name, right in (("jina", promised), ("vllm", promised), ("openai", not_promised)):
        assert spoken(name).decode(asked(), content).tokens == right


def test_timing_headers_are_read() -> None:
    said = {"X-Total-Time": "12.5", "X-Inference-Time": "10", "x-router-overhead": "0.5", "date": "today"}
    assert clocks(httpx.Headers(said)) == {"router": 0.0125, "inference": 0.01, "overhead": 0.0005}


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "-1", "1e307"])
def test_invalid_timing_header_is_left_out(value: str) -> None:
    said = httpx.Headers({"x-total-time": value, "x-queue-time": "2"})
    assert clocks(said) == {"queue": 0.002}
