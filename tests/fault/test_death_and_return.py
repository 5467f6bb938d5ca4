"""Workers that die or stop and come back, also of their inputs: what clients see."""

import asyncio

import pytest

from tests.fakes.router import one_worker, running_router
from tests.fakes.worker import DEADLY, FakeWorker, fake_workers
from triptych.router.pool.replica import State


@pytest.mark.parametrize("how", ["dead", "not ready", "draining"])
async def test_dead_worker_gets_no_batches(how: str) -> None:
    bad, good = FakeWorker(), FakeWorker()
    async with fake_workers(bad, good), running_router(bad, good, probe_seconds=0.02) as router:
        match how:
            case "dead":
                await bad.die()
            case "not ready":
                bad.ready = False
            case "draining":
                bad.mode = "draining"
                replies = await asyncio.gather(*(router.ask([f"{number}"]) for number in range(10)))
                assert {reply.status_code for reply in replies} == {200}
                bad.ready = False
        await router.until_state(bad, State.DOWN, State.DRAINING)
        before = len(bad.batches)
        assert (await router.ask([f"text {number}" for number in range(100)])).status_code == 200
        assert len(bad.batches) == before


async def test_stale_connection_to_a_restarted_replica_is_retried() -> None:
    async with one_worker() as (router, worker):
        for number in range(5):
            await worker.die()
            await worker.start()
            await router.until_state(worker, State.READY)
            assert (await router.ask([f"text {number}"])).status_code == 200
        await router.until_idle()


@pytest.mark.parametrize("count", [1, 3])
async def test_deadly_input_kills_two_workers_at_most(count: int) -> None:
    workers = [FakeWorker(dimensions=64) for _ in range(count)]
    async with fake_workers(*workers), running_router(*workers, hold_seconds=60) as router:
        for _ in range(3):
            reply = await router.ask(["a", f"{DEADLY} 1"])
            assert reply.status_code == 400
            assert reply.json()["code"] == "INPUT_CRASHES_WORKER"
            assert reply.json()["detail"].startswith("body -> input -> 1: 2 workers died")
        assert sum(worker.deaths for worker in workers) == 2
        for worker in workers:
            await router.until_state(worker, State.READY)
        assert (await router.ask(["a", "b"])).status_code == 200
        await router.until_idle()


@pytest.mark.parametrize("count", [1, 2])
async def test_deadly_input_spares_its_batch(count: int) -> None:
    workers = [FakeWorker(dimensions=64) for _ in range(count)]
    async with fake_workers(*workers), running_router(*workers, hold_seconds=60) as router:
        for worker in workers:
            worker.mode = "held"
        held = [
            asyncio.create_task(router.ask([f"held {n} {i}" for i in range(4)])) for n in range(2 * count)
        ]
        await asyncio.gather(*(worker.until_batches(1) for worker in workers))
        for worker in workers:
            worker.mode = "healthy"
        deadly = asyncio.create_task(router.ask([DEADLY, "beside it"]))
        others = [asyncio.create_task(router.ask([f"other {n}"])) for n in range(20)]
        assert (await deadly).status_code == 400
        for worker in workers:
            worker.gate.set()
        statuses = [reply.status_code for reply in await asyncio.gather(*held, *others)]
        assert set(statuses) == {200}
        await router.until_idle()
