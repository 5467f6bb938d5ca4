"""Authentication, limits per key, and reloading of the key file."""

import hashlib
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.metrics import parse, value
from tests.unit.router.apps import Workers, client_of_app, settings_of
from triptych.router.access.guard import OPEN_PATHS, Guard
from triptych.router.api.app import App
from triptych.router.errors import AuthError, RateExceeded
from triptych.router.http import Request
from triptych.router.memory import Budget
from triptych.workers.shared.strict_settings import SettingsError

SECRET = "triptych_one-of-the-keys-that-no-output-may-hold"
BEARER = {"Authorization": f"Bearer {SECRET}"}
OTHER = "triptych_another-of-the-keys-that-no-output-may-hold"


def entry(secret: str = SECRET, name: str = "alice", **limits: int) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **limits}


def limits_of(reply: httpx.Response) -> dict[str, str]:
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in reply.headers.items()
        if name.startswith("x-ratelimit-")
    }


# From the routes of the application, so that new ones are tested too.
ROUTES = [
    (method, f"{path}x" if path.endswith("/") else path)
    for path in App(settings_of()).routes
    for method in ("GET", "POST", "HEAD", "DELETE", "OPTIONS")
]
OTHER_PATHS = [("GET", path) for path in ("/nowhere", "/live//", "/live/", "/metrics")]


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {OTHER}"}], ids=["no key", "wrong key"])
async def test_all_but_open_paths_need_a_key(headers: dict[str, str]) -> None:
    code = "AUTH_INVALID_API_KEY" if headers else "AUTH_MISSING_API_KEY"
    async with client_of_app(Workers(), api_keys=[entry()]) as client:
        for method, path in (*ROUTES, *OTHER_PATHS):
            reply = await client.request(method, path, headers=headers)
            if path in OPEN_PATHS:
                assert reply.status_code != 401
                continue
            assert reply.status_code == 401, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert reply.json()["code"] == code
            assert (await client.request(method, path, headers=BEARER)).status_code != 401


async def test_requests_are_counted_by_key() -> None:
    async with client_of_app(Workers(), api_keys=[entry()]) as client:
        await client.post("/v1/embeddings", json={"input": "a"}, headers=BEARER)
        page = parse((await client.get("/metrics", headers=BEARER)).text)
    assert value(page, "triptych_router_key_request_duration_seconds_count", key=entry()["name"]) == 1


async def test_body_without_key_is_not_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield pytest.fail("the body was read")

    async with client_of_app(Workers(), api_keys=[entry()]) as client:
        assert (await client.post("/v1/embeddings", content=body())).status_code == 401


async def test_requests_are_limited() -> None:
    workers = Workers()
    async with client_of_app(workers, api_keys=[entry(requests_per_minute=2)]) as client:
        replies = [await client.post("/v1/embeddings", json={"input": "a"}, headers=BEARER) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert replies[2].json()["code"] == "RATE_REQUEST_LIMIT_EXCEEDED"
        assert 0 < int(replies[2].headers["retry-after"]) <= 45
        assert [limits_of(reply)["remaining-requests"] for reply in replies] == ["1", "0", "0"]
        assert limits_of(replies[2])["limit-requests"] == "2"
        assert limits_of(replies[2])["reset-requests"].endswith("s")
        assert len(workers.batches) == 2
        assert (await client.get("/live", headers=BEARER)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_tokens_are_limited(path: str) -> None:
    workers = Workers()
    async with client_of_app(workers, api_keys=[entry(tokens_per_minute=1000)]) as client:
        body: dict[str, Any] = {"input": ["a text", "b"], "query": "q", "documents": ["a text", "b"]}
        reply = await client.post(path, json=body, headers=BEARER)
        left = 1000 - reply.json()["usage"]["total_tokens"]
        assert limits_of(reply)["remaining-tokens"] == str(left)
        asked = len(workers.batches)
        large = body | {"input": "a" * 4000, "query": "a" * 4000}
        reply = await client.post(path, json=large, headers=BEARER)
        assert (reply.status_code, reply.json()["code"]) == (429, "RATE_TOKEN_LIMIT_EXCEEDED")
        assert int(reply.headers["retry-after"]) >= 1
        assert int(limits_of(reply)["remaining-tokens"]) >= left
        assert len(workers.batches) == asked


async def test_failed_request_refunds_tokens() -> None:
    workers = Workers()
    workers.dead = {"code"}
    keys = [entry(tokens_per_minute=1000, requests_per_minute=10)]
    async with client_of_app(workers, api_keys=keys) as client:
        body = {"input": "a" * 2000, "task": "code.query"}
        reply = await client.post("/v1/embeddings", json=body, headers=BEARER)
        assert reply.status_code == 503
        assert limits_of(reply)["remaining-tokens"] == "1000"
        assert limits_of(reply)["remaining-requests"] == "9"


async def test_token_refusal_is_not_counted() -> None:
    keys = [entry(tokens_per_minute=100, requests_per_minute=10)]
    async with client_of_app(Workers(), api_keys=keys) as client:
        await client.post("/v1/embeddings", json={"input": "a"}, headers=BEARER)
        for _ in range(3):
            reply = await client.post("/v1/embeddings", json={"input": "a" * 4000}, headers=BEARER)
            assert reply.status_code == 429
            assert limits_of(reply)["remaining-requests"] == "9"


def admitted(guard: Guard, secret: str) -> str:
    """The name of the key that a request with `secret` is admitted by; empty if it is refused."""
    headers = [(b"authorization", f"Bearer {secret}".encode())]
    request = Request({"method": "GET", "path": "/ready", "headers": headers}, None, Budget(1))  # type: ignore[arg-type]
    try:
        guard.admit(request)
    except (AuthError, RateExceeded):
        return ""
    assert request.memory.key == request.key
    return request.key


def test_settings_and_file_add_up(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([entry(OTHER, "bob")]))
    guard = Guard(settings_of(api_keys_file=path, api_keys=[entry()]))
    assert (admitted(guard, SECRET), admitted(guard, OTHER)) == ("alice", "bob")


@pytest.mark.parametrize("content", ["", "[", f'["{OTHER}"]', json.dumps([entry(), entry()]), None, "FIFO"])
def test_broken_file_keeps_the_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([entry()]))
    guard = Guard(settings_of(api_keys_file=path))
    path.unlink()
    if content == "FIFO":
        os.mkfifo(path)
    elif content is not None:
        path.write_text(content)
    # A FIFO does not block it.
    guard.reload()
    guard.reload()
    assert admitted(guard, SECRET)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ROUTER_API_KEYS_FILE" in record.getMessage()
    assert OTHER not in caplog.text
    path.unlink(missing_ok=True)
    path.write_text(json.dumps([entry(OTHER, "bob")]))
    guard.reload()
    assert (admitted(guard, SECRET), admitted(guard, OTHER)) == ("", "bob")


@pytest.mark.parametrize("content", [None, "[", f'["{SECRET}"]', json.dumps([{SECRET: 1}])])
def test_start_with_broken_file_fails(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="ROUTER_API_KEYS_FILE") as caught:
        Guard(settings_of(api_keys_file=path))
    assert SECRET not in str(caught.value)


def test_start_with_bad_limits_file_fails(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ROUTER_LIMITS_FILE"):
        Guard(settings_of(api_keys=[entry()], limits_file=tmp_path / "no" / "file"))


def test_limits_file_is_shared(tmp_path: Path) -> None:
    given = settings_of(api_keys=[entry(requests_per_minute=3)], limits_file=tmp_path / "limits")
    guards = [Guard(given), Guard(given)]
    assert [admitted(guards[turn % 2], SECRET) for turn in range(4)] == ["alice"] * 3 + [""]
