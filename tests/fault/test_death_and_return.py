"""Workers that die or stop and come back: what clients see."""

import asyncio

import pytest

from tests.fakes.router import one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
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
