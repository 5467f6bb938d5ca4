"""Several models behind one router: the request's model and task choose the worker, over real sockets."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.workers.shared.families import BY_POOL, FAMILIES, V3

RANKING = {"query": "a", "documents": ["b"]}


def fake(pool: str) -> FakeWorker:
    family = BY_POOL[pool]
    sizes = {"max_tokens": family.positions, "multivector_dimensions": family.multivector}
    return FakeWorker(pool, family.dimensions, **sizes)


@pytest.fixture
async def router() -> AsyncIterator[RunningRouter]:
    """With a worker for each pool of each model."""
    workers = [fake(pool) for pool in BY_POOL]
    async with fake_workers(*workers), running_router(*workers) as running:
        yield running


async def test_models_are_listed_with_what_their_workers_say(router: RunningRouter) -> None:
    listed = (await router.client.get("/v1/models")).json()["data"]
    assert {entry["id"] for entry in listed} == {family.name for family in FAMILIES}
    for entry, family in zip(listed, FAMILIES, strict=True):
        assert entry["tasks"] == list(family.tasks)
        assert entry["dimensions"] == (family.dimensions if family.tasks else None)
        assert entry["max_tokens"] == family.positions
        assert set(entry["vector_spaces"]) == set(family.pools)
        assert (await router.client.get(f"/v1/models/{family.names[1]}")).json()["tasks"] == entry["tasks"]


async def test_reply_names_its_model_and_pool(router: RunningRouter) -> None:
    for family in FAMILIES:
        path, body = ("embeddings", {"input": "a"}) if family.tasks else ("rerank", RANKING)
        reply = await router.client.post(f"/v1/{path}", json=body | {"model": family.name})
        assert reply.json()["model"] == family.name
        assert reply.headers["x-vector-space"].partition("=")[0] in family.pools


async def test_document_lists_the_tasks_of_the_models_that_are_served() -> None:
    worker = fake("v3.base")
    async with fake_workers(worker), running_router(worker) as router:
        document = (await router.client.get("/openapi.json")).json()
    task = document["components"]["schemas"]["TextItem"]["properties"]["task"]["anyOf"][0]["enum"]
    assert task == [*V3.tasks, *V3.other_tasks]
    dimensions = document["components"]["schemas"]["EmbeddingRequest"]["properties"]["dimensions"]
    assert dimensions["anyOf"][0]["maximum"] == V3.dimensions
    assert V3.name in document["info"]["description"]


async def test_space_of_a_pool_with_a_key_can_be_required(router: RunningRouter) -> None:
    body = {"input": "a", "model": V3.name}
    for space, status in (("0" * 16, 200), ("1" * 16, 412)):
        headers = {"x-require-vector-space": f"v3.base={space}"}
        reply = await router.client.post("/v1/embeddings", json=body, headers=headers)
        assert reply.status_code == status, reply.text
