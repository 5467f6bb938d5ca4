"""Inputs that kill the worker that encodes them."""

import asyncio

import pytest

from tests.fakes.router import running_router
from tests.fakes.worker import DEADLY, FakeWorker, fake_workers
from triptych.router.pool.replica import State


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
