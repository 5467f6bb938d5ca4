"""One worker for all tasks of a model: which adapter encodes an item, and what clients see of it."""

from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from tests.fakes.frames import source, vector_of
from tests.fakes.router import eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.documents import Document, discovering
from triptych.router.pool.replica import State
from triptych.workers.shared.contract import Item, Role, Text, adapter_space
from triptych.workers.shared.families import V4

OLD, NEW = "a" * 16, "b" * 16
DIMENSIONS = 64
TASKS = list(V4.tasks)


def worker(space: str = OLD, task: str = "shared") -> FakeWorker:
    return FakeWorker(task, DIMENSIONS, space=space)


def right(adapter: str, space: str, text: str, role: Role) -> np.ndarray:
    vector = vector_of(source(adapter, space), Item(Text(text, role)), DIMENSIONS)
    return np.frombuffer(vector.data, np.float32)


def inputs(count: int) -> list[dict[str, str]]:
    """Texts of all tasks in turn."""
    return [{"text": f"text {number}", "task": TASKS[number % len(TASKS)]} for number in range(count)]


def check(reply: httpx.Response, asked: Sequence[dict[str, str]], space: str) -> None:
    """Check that each vector is of its task's adapter and of `space`, and the header."""
    assert reply.status_code == 200, reply.text
    for entry, one in zip(reply.json()["data"], asked, strict=True):
        route = V4.tasks[one["task"]]
        vector = np.array(entry["embedding"], np.float32)
        np.testing.assert_array_equal(vector, right(route.adapter, space, one["text"], route.role))
    named = {V4.tasks[one["task"]].adapter for one in asked}
    expected = {f"{name}={adapter_space(space, name)}" for name in named}
    assert set(reply.headers["x-vector-space"].split(", ")) == expected


@pytest.mark.parametrize(("batch_items", "batches"), [(256, 1), (5, 4)])
async def test_tasks_share_batches(batch_items: int, batches: int) -> None:
    """Each adapter of the worker has its own space, also in several batches."""
    shared = worker()
    async with fake_workers(shared), running_router(shared, batch_items=batch_items, lanes=1) as router:
        check(await router.post(input=inputs(20), task=None), inputs(20), OLD)
        assert len(shared.batches) == batches
        assert [item.adapter for item in shared.items] == [
            V4.tasks[one["task"]].adapter for one in inputs(20)
        ]
        page = (await router.client.get("/metrics")).text
        assert 'triptych_router_items_total{pool="shared"} 20.0' in page
        assert 'pool="retrieval"' not in page


async def test_ranking_names_the_adapter_of_its_documents() -> None:
    shared = worker()
    async with fake_workers(shared), running_router(shared) as router:
        reply = await router.client.post("/v1/rerank", json={"query": "a", "documents": ["b", "c"]})
        assert reply.status_code == 200
        assert reply.headers["x-vector-space"] == f"retrieval={adapter_space(OLD, 'retrieval')}"
        [batch] = shared.batches
        assert [(item.adapter, item.against) for item in batch.items] == [("retrieval", 0)] * 2


async def test_tasks_are_listed_and_not_the_shared_pool() -> None:
    shared = worker()
    spaces = {pool: [adapter_space(OLD, pool)] for pool in V4.pools}
    assert len({space for [space] in spaces.values()} | {OLD}) == 4
    async with fake_workers(shared), running_router(shared) as router:
        ready = (await router.client.get("/ready")).json()
        assert ready["pools"] == dict.fromkeys(V4.pools, "ready")
        assert ready["vector_spaces"] == spaces
        [model] = (await router.client.get("/v1/models")).json()["data"]
        assert model["tasks"] == TASKS
        assert model["vector_spaces"] == spaces
        targets = (await router.client.get("/targets")).json()
        assert [group["labels"]["task"] for group in targets] == ["shared"]
        await shared.die()
        await router.until_state(shared, State.DOWN)
        ready = (await router.client.get("/ready")).json()
        assert ready["pools"].keys() == set(V4.pools)
        assert not any(state == "ready" for state in ready["pools"].values())
        assert (await router.post(input=["a"])).status_code == 503


@pytest.mark.parametrize(
    ("required", "tasks", "status"),
    [
        (adapter_space(OLD, "retrieval"), ["code.query"], 412),
        (f"retrieval={adapter_space(OLD, 'retrieval')}", ["code.query"], 200),
        (f"code={adapter_space(OLD, 'retrieval')}", ["code.query"], 412),
        # One wrong space refuses the whole request.
        (f"code={adapter_space(OLD, 'retrieval')}", ["retrieval.query", "code.query"], 412),
        (OLD, ["retrieval.query"], 412),
        (f"shared={OLD}", ["retrieval.query"], 422),
    ],
)
async def test_client_requires_the_space_of_an_adapter(required: str, tasks: list[str], status: int) -> None:
    shared = worker()
    async with fake_workers(shared), running_router(shared) as router:
        texts = [{"text": "a", "task": task} for task in tasks]
        reply = await router.post(input=texts, headers={"x-require-vector-space": required})
        assert reply.status_code == status, reply.text
        if status == 412:
            pool = V4.tasks[tasks[-1]].adapter
            assert f"the pool {pool} serves the vector space {adapter_space(OLD, pool)}" in reply.text
        assert len(shared.batches) == (status == 200)


async def test_pool_of_its_own_may_come_and_go(document: Document) -> None:
    shared, own = worker(), worker(NEW, "retrieval")
    async with fake_workers(shared, own), discovering(document, shared) as router:
        await router.until_state(shared, State.READY)
        text = {"text": "a", "task": "retrieval.query"}
        check(await router.post(input=[text]), [text], OLD)
        own.ready = False
        document.name(shared, own)
        await eventually(lambda: router.knows(own))
        check(await router.post(input=[text]), [text], OLD)
        assert (await router.client.get("/ready")).status_code == 200
        own.ready = True
        await router.until_state(own, State.READY)
        assert (await router.post(input=[text])).headers["x-vector-space"] == f"retrieval={NEW}"
        own.ready = False
        await eventually(lambda: router.replica(own).state is not State.READY)
        # The vector space changes only on purpose.
        assert (await router.post(input=[text])).status_code == 503
        document.name(shared)
        await eventually(lambda: not router.knows(own))
        check(await router.post(input=[text]), [text], OLD)
