"""Fuzzing of request bodies: each gets a valid result or a valid 4xx error."""

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fault.fuzzing import Target, check_error, check_reply

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def client(target: Target) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=target.url, timeout=GUARD_SECONDS, trust_env=False) as client:
        yield client


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
