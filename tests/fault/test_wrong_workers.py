"""Workers that do not serve what they should get no batches."""

import msgspec

from tests.fakes.router import eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers


async def test_swapped_worker_returns_no_vectors() -> None:
    """It restarts with another task before the next probe."""
    async with one_worker() as (router, worker):
        assert (await router.ask(["a"])).status_code == 200
        await worker.die()
        worker.info = msgspec.structs.replace(worker.info, task="code")
        await worker.start()
        replies = [await router.ask([f"text {number}"]) for number in range(10)]
        assert {reply.status_code for reply in replies} <= {503}
        await eventually(lambda: "code" in router.replica(worker).reason)
        assert (await router.ask(["b"])).status_code == 503


async def test_unreadable_info_is_refused() -> None:
    async with one_worker(wait=False, probe_seconds=0.02) as (router, worker):
        worker.info = None  # type: ignore[assignment]
        await eventually(lambda: "invalid" in router.replica(worker).reason)
        assert (await router.ask(["a"])).status_code == 503


async def test_worker_info_bounds_dimensions() -> None:
    dimensions = 64
    worker = FakeWorker(dimensions=dimensions)
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask(["a"], dimensions=dimensions)).status_code == 200
        reply = await router.ask(["a"], dimensions=dimensions + 1)
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "body -> dimensions"
        assert len((await router.ask(["a"])).json()["data"][0]["embedding"]) == dimensions
