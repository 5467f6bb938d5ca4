"""Paths, methods, and the headers of every reply."""

import re
from collections.abc import AsyncIterator
from unittest.mock import Mock

import httpx
import pytest

from tests.metrics import parse, value
from tests.unit.router.apps import ADDRESSES, Workers, client_of_app
from triptych.router.items import MOST_INTERACTIVE_ITEMS
from triptych.workers.shared.families import V4

TIMES = ("x-total-time", "x-queue-time", "x-inference-time", "x-router-overhead")
LIMIT = 2000
ID = "0123456789abcdefABCDEF9876543210"


@pytest.fixture
async def client(workers: Workers) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_app(workers, max_body_bytes=LIMIT) as client:
        yield client


async def test_every_page_can_be_read(client: httpx.AsyncClient) -> None:
    pages = ("/", "/v1/models", f"/v1/models/{V4.name}", "/health", "/live", "/ready", "/targets")
    for path in (*pages, "/metrics", "/docs", "/openapi.json"):
        for method in ("GET", "HEAD"):
            assert (await client.request(method, path)).status_code == 200, path


async def test_targets_lists_all_workers(client: httpx.AsyncClient) -> None:
    expected = [{"targets": [address], "labels": {"task": task}} for address, task in ADDRESSES.items()]
    assert (await client.get("/targets")).json() == expected


@pytest.mark.parametrize(
    "path", ["/x", "/v1", "/v1/embedding", "/v1/embeddings/", "/metricss", "/docs/x", "/v1/models/"]
)
async def test_unknown_path_returns_404(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "NOT_FOUND")


async def test_page_can_be_switched_off(workers: Workers) -> None:
    async with client_of_app(workers, page=False) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/jina-embeddings-v4", "GET, HEAD"),
        ("POST", "/ready", "GET, HEAD"),
    ],
)
async def test_wrong_method_returns_405(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    reply = await client.request(method, path)
    assert (reply.status_code, reply.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == allow


async def test_usage_counts_all_pools(client: httpx.AsyncClient) -> None:
    items = [{"text": "a text", "task": task} for task in V4.tasks]
    each = [(await client.post("/v1/embeddings", json={"input": [item]})).json() for item in items]
    together = (await client.post("/v1/embeddings", json={"input": items})).json()
    assert together["usage"]["total_tokens"] == sum(reply["usage"]["total_tokens"] for reply in each)
    assert together["usage"]["prompt_tokens"] == together["usage"]["total_tokens"]
    assert [entry["embedding"] for entry in together["data"]] == [
        reply["data"][0]["embedding"] for reply in each
    ]


async def test_request_id_is_returned(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/nowhere", "/v1/models"):
        assert (await client.get(path, headers={"X-Request-Id": ID})).headers["x-request-id"] == ID
    error = await client.post("/v1/embeddings", content=b"{", headers={"X-Request-Id": ID})
    assert error.json()["request_id"] == error.headers["x-request-id"] == ID


@pytest.mark.parametrize("sent", [None, "", "mine", ID + "0", ID[:-1] + "g", ID[:-1] + " "])
async def test_invalid_request_id_is_replaced(client: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}
    made = {(await client.get("/nowhere", headers=headers)).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)


@pytest.mark.parametrize("body", [{"input": ["a", "b"]}, {"input": 5}, {"input": "a", "model": "x"}])
async def test_time_headers_add_up(client: httpx.AsyncClient, body: object) -> None:
    reply = await client.post("/v1/embeddings", json=body)
    total, queue, inference, overhead = (float(reply.headers[name]) for name in TIMES)
    assert total == pytest.approx(queue + inference + overhead, abs=0.002)
    assert min(total, queue, inference, overhead) >= 0
    assert (inference > 0) == (reply.status_code == 200)


async def test_body_limit_is_exact(client: httpx.AsyncClient) -> None:
    body = b'{"input": "%s"}' % (b"a" * (LIMIT - 13))
    for content, status in ((body, 200), (body + b" ", 413)):
        assert (await client.post("/v1/embeddings", content=content)).status_code == status


async def test_endless_body_is_refused(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield bytes(1 << 20)

    reply = await client.post("/v1/embeddings", content=endless())
    assert reply.status_code == 413
    assert read < 100 << 20


@pytest.mark.parametrize("dead", [False, True])
async def test_readiness_of_each_pool(workers: Workers, dead: bool) -> None:
    workers.dead = {"code"} if dead else set()
    async with client_of_app(workers) as client:
        reply = await client.get("/ready")
        assert reply.status_code == (503 if dead else 200)
        code, spaces = ("code:1: connection refused", []) if dead else ("ready", ["0" * 16])
        assert reply.json() == {
            "ready": not dead,
            "reason": None,
            "pools": {"retrieval": "ready", "text-matching": "ready", "code": code},
            "vector_spaces": {"retrieval": ["0" * 16], "text-matching": ["0" * 16], "code": spaces},
        }
        page = parse((await client.get("/metrics")).text)
        assert value(page, "triptych_router_pool_ready", pool="code") == (not dead)
        for path in ("/health", "/live"):
            assert (await client.get(path)).status_code == 200
        for task in ("code.query", "retrieval.query"):
            reply = await client.post("/v1/embeddings", json={"input": "a", "task": task})
            assert reply.status_code == (503 if dead and task == "code.query" else 200)


@pytest.mark.parametrize("name", [*V4.names, f"{V4.names[0]}:code.query", f"{V4.names[1]}:text-matching"])
async def test_model_is_found_by_all_names(client: httpx.AsyncClient, name: str) -> None:
    for path in (f"/v1/models/{name}", f"/v1/models/{name.replace('/', '%2F')}"):
        reply = await client.get(path)
        assert reply.status_code == 200
        assert reply.json()["id"] == name


async def test_model_is_found_by_alias(workers: Workers) -> None:
    aliases = {"mine": {"tasks": {"separation": "code.query"}}}
    async with client_of_app(workers, model_aliases=aliases) as client:
        assert (await client.get("/v1/models/mine")).json()["id"] == "mine"
        body = {"input": "a", "task": "separation", "model": "mine"}
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        assert workers.pools == ["code"]


@pytest.mark.parametrize("name", ["x", "jina-embeddings-v3", "jina-embeddings-v4:x", "%00", "%ff"])
async def test_unknown_model_returns_404(client: httpx.AsyncClient, name: str) -> None:
    reply = await client.get(f"/v1/models/{name}")
    assert reply.status_code == 404
    assert "jina-embeddings-v4" in reply.json()["detail"]


async def test_unexpected_error_hides_details(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Mock(side_effect=ZeroDivisionError("secret"))
    monkeypatch.setattr("triptych.router.api.app.model_list", broken)
    reply = await client.get("/v1/models")
    assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in reply.text


@pytest.mark.parametrize(
    ("value", "items", "priority"),
    [
        ("interactive", 1, 0),
        # However large, it would hold up the queries of others.
        ("interactive", MOST_INTERACTIVE_ITEMS + 1, 1),
        ("bulk", 1, 1),
        (" bulk ", 1, 1),
        (None, 1, 0),
    ],
)
async def test_header_sets_priority(
    client: httpx.AsyncClient, workers: Workers, value: str | None, items: int, priority: int
) -> None:
    headers = {} if value is None else {"x-priority": value}
    reply = await client.post("/v1/embeddings", json={"input": ["a"] * items}, headers=headers)
    assert reply.status_code == 200
    assert {batch.priority for batch in workers.batches} == {priority}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-priority", "high"),
        *(("x-request-timeout-seconds", value) for value in ("", "soon", "0", "-1", "nan", "inf", "3601")),
    ],
)
async def test_invalid_header_is_named(client: httpx.AsyncClient, name: str, value: str) -> None:
    reply = await client.post("/v1/embeddings", json={"input": "a"}, headers={name: value})
    assert reply.status_code == 422
    assert [fault["field"] for fault in reply.json()["errors"]] == [f"header -> {name}"]
