"""Fuzzing of request bodies: each gets a valid result or a valid 4xx error."""

import base64
import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fault.fuzzing import DIMENSIONS, MAX_ITEMS, Target, check_error, check_reply
from triptych.router.api.schema import EmbeddingRequest, EmbeddingType
from triptych.workers.shared.families import V4

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# A valid GIF, and broken or foreign files.
GIF = (
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
)
FILES = [GIF, GIF[:20], b"\x89PNG\r\n\x1a\n", b"%PDF-1.4\n%%EOF", b"", bytes(64)]


@pytest.fixture(scope="module")
def client(target: Target) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=target.url, timeout=GUARD_SECONDS, trust_env=False) as client:
        yield client


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

aliases = {
    alias
    for field in EmbeddingRequest.model_fields.values()
    for alias in getattr(field.validation_alias, "choices", ())
}
names = st.sampled_from(sorted({*EmbeddingRequest.model_fields, *aliases, "user", "|strings"}))

files = st.sampled_from(FILES).map(lambda data: base64.b64encode(data).decode())
media = st.one_of(
    files,
    st.tuples(
        st.sampled_from(["data:image/png;base64,", "data:image/gif;base64,", "data:application/pdf;base64,"]),
        files,
    ).map("".join),
    st.sampled_from(["data:image/png,", "data:,", "http://127.0.0.1:1/x", "https://", "file:///etc/passwd"]),
    st.text(max_size=12),
)
tasks = st.sampled_from([*V4.tasks, "retrieval", "", None, 5])
items = st.one_of(
    st.text(max_size=30),
    st.fixed_dictionaries({"text": st.text(max_size=30)}, optional={"task": tasks}),
    st.fixed_dictionaries({}, optional={"image": media, "task": tasks}),
    st.fixed_dictionaries({"url": media}) | st.fixed_dictionaries({"bytes": media}),
    st.fixed_dictionaries({"pdf": media}, optional={"text": st.none() | st.text(max_size=3)}),
    media,
    json_values,
)
right: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["jina-embeddings-v4", "jinaai/jina-embeddings-v4:code.query", "x", ":", ""]),
    "task": tasks,
    "dimensions": st.integers(-1, DIMENSIONS + 2) | st.sampled_from([2048, 2049, True, "64", 8.0, 8.5]),
    "embedding_type": st.sampled_from([*get_args(EmbeddingType), ["float"], ["float", "binary"], [], "x"]),
    **{
        name: st.booleans() | st.none() | st.sampled_from([0, 1, "true", "x"])
        for name in (
            "truncate",
            "normalized",
            "late_chunking",
            "return_multivector",
            "return_tokenized_input",
        )
    },
    "embed_dtype": st.sampled_from(["float32", "float16", "float64"]),
}
bodies = st.fixed_dictionaries(
    {"input": items | st.lists(items, max_size=5) | st.lists(st.text(max_size=4), max_size=MAX_ITEMS + 2)},
    optional=right,
).flatmap(
    # Add or replace a field with any value.
    lambda body: st.dictionaries(names, json_values, max_size=1).map(lambda odd: {**body, **odd})
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "accept": st.sampled_from(["*/*", "application/x-npy", "text/html, application/x-npy;q=0.5", ""]),
        "x-priority": st.sampled_from(["interactive", "bulk", "high", ""]),
        "x-request-timeout-seconds": st.sampled_from(["5", "3600", "0", "-1", "nan", "inf", "1e99", "x"]),
        "x-request-id": st.sampled_from(["a" * 32, "a" * 31, "x y", ""]),
        "content-type": st.sampled_from(["application/json", "text/plain", "x", ""]),
    },
)


@EXAMPLES
@given(body=st.binary(max_size=300))
@example(b"")
@example(b"null")
@example(b"[]")
@example(b'"input"')
@example(b'{"input": "a", "input": 5}')
@example(b'{"input": "\\ud800"}')
@example(b'{"input": "\xff"}')
@example(b'\xef\xbb\xbf{"input": "a"}')
@example(b'{"input": NaN}')
@example(b'{"input": "a", "dimensions": 1e400}')
@example(b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}")
@example(b'{"input": ' + b'{"text":' * 500 + b"1" + b"}" * 500 + b"}")
@example(b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}")
def test_any_bytes_get_a_valid_reply(client: httpx.Client, body: bytes) -> None:
    check_reply(client.post("/v1/embeddings", content=body))


@EXAMPLES
@given(body=bodies | json_values, sent=headers)
def test_almost_valid_body_gets_a_valid_reply(
    client: httpx.Client, body: object, sent: dict[str, str]
) -> None:
    content = json.dumps(body)
    check_reply(client.post("/v1/embeddings", content=content, headers=sent))


@EXAMPLES
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    path=st.sampled_from(
        ["/", "/v1/embeddings/", "/v1/models/", "/v1/models/%00", "/%ff", "//", "/v1/rerank"]
    )
    | st.text(max_size=20).map(lambda text: "/" + text),
)
def test_any_path_gets_a_valid_reply(client: httpx.Client, method: str, path: str) -> None:
    try:
        address = httpx.URL(f"{str(client.base_url).rstrip('/')}{path}")
    except (httpx.InvalidURL, UnicodeError):
        return
    reply = client.request(method, address)
    assert reply.status_code < 500
    if reply.status_code >= 400:
        check_error(reply)
