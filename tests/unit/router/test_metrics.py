"""`/metrics` after known requests."""

import httpx
from prometheus_client import generate_latest

from tests.metrics import Page, parse, value
from tests.unit.router.apps import Workers
from triptych.router.observe.metrics import MOST_KEYS, Metrics


async def read(client: httpx.AsyncClient) -> Page:
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parse(reply.text)


async def test_request_is_counted(client: httpx.AsyncClient) -> None:
    body = {"input": ["a", "b", "c"], "task": "retrieval.query", "embedding_type": "base64"}
    reply = await client.post("/v1/embeddings", json=body)
    page = await read(client)
    route = {"route": "/v1/embeddings", "status": "200"}
    assert value(page, "triptych_router_request_duration_seconds_count", **route) == 1
    waited = {"pool": "retrieval", "class": "interactive"}
    assert value(page, "triptych_router_queue_wait_seconds_count", **waited) == 1
    assert value(page, "triptych_router_batch_items_sum", pool="retrieval") == 3
    assert value(page, "triptych_router_batch_tokens_sum", pool="retrieval") > 0
    done = {"pool": "retrieval", "outcome": "done"}
    assert value(page, "triptych_router_inference_duration_seconds_count", **done) == 1
    assert value(page, "triptych_router_encode_duration_seconds_count", form="base64") == 1
    assert value(page, "triptych_router_items_total", pool="retrieval") == 3
    tokens = reply.json()["usage"]["total_tokens"]
    assert value(page, "triptych_router_tokens_total", pool="retrieval") == tokens
    assert value(page, "triptych_router_items_total", pool="code") == 0
    assert value(page, "triptych_router_pool_ready", pool="code") == 1
    assert value(page, "triptych_router_replica_lanes", pool="code", replica="code:1") == 4


async def test_refusal_is_counted_by_code(client: httpx.AsyncClient, workers: Workers) -> None:
    await client.post("/v1/embeddings", json={"input": []})
    await client.post("/v1/embeddings", json={"input": "a", "model": "x"})
    page = await read(client)
    assert value(page, "triptych_router_rejections_total", reason="VALIDATION_ERROR") == 1
    assert value(page, "triptych_router_rejections_total", reason="INPUT_MODEL_NOT_FOUND") == 1
    route = {"route": "/v1/embeddings", "status": "422"}
    assert value(page, "triptych_router_request_duration_seconds_count", **route) == 1


async def test_unknown_paths_share_a_label(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.get(f"/made-up/{number}")
        await client.get(f"/v1/models/{number}")
    page = await read(client)
    routes = {
        dict(labels)["route"]
        for name, labels in page
        if name == "triptych_router_request_duration_seconds_count"
    }
    assert routes == {"other", "/v1/models/"}


def test_keys_beyond_the_most_share_a_label() -> None:
    metrics = Metrics()
    for number in range(MOST_KEYS + 2):
        metrics.answered("/v1/embeddings", 200, 0.5, f"key-{number}")
    metrics.answered("/v1/embeddings", 200, 0.5, "key-0")
    page = parse(generate_latest(metrics.registry).decode())
    name = "triptych_router_key_request_duration_seconds"
    assert value(page, f"{name}_count", key="key-0") == 2
    assert value(page, f"{name}_sum", key="key-0") == 1
    assert value(page, f"{name}_count", key="other") == 2
    assert len([labels for metric, labels in page if metric == f"{name}_count"]) == MOST_KEYS + 1
