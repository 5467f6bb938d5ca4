"""Workers that die or stop and come back: what clients see."""

import asyncio

import pytest

from tests.fakes.load import OpenLoop
from tests.fakes.router import eventually, one_worker, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.pool.replica import State


async def test_repeated_kills_cause_no_errors() -> None:
    workers = [FakeWorker(dimensions=64), FakeWorker(dimensions=64)]
    # Admission goes by the rate, which a busy machine makes low.
    async with fake_workers(*workers), running_router(*workers, request_timeout_seconds=600) as router:
        for turn in range(3):
            victim = workers[turn % 2]
            load = OpenLoop(router, 10)
            await load.answered(20)
            await victim.die()
            await router.until_state(victim, State.DOWN)
            await load.answered(20)
            # An item in flight at two deaths would be refused.
            assert set(await load.stop()) == {"ok"}
            await victim.start()
            await router.until_state(victim, State.READY)
        await router.until_idle()


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
                await asyncio.gather(*(router.ask([f"{number}"]) for number in range(10)))
                bad.ready = False
        await router.until_state(bad, State.DOWN, State.DRAINING)
        before = len(bad.batches)
        assert (await router.ask([f"text {number}" for number in range(100)])).status_code == 200
        assert len(bad.batches) == before


async def test_restarted_worker_gets_batches() -> None:
    """Even while the other has a free lane."""
    back, good = FakeWorker(), FakeWorker()
    async with fake_workers(back, good), running_router(back, good, lanes=2) as router:
        await back.die()
        assert (await router.ask(["a"])).status_code == 200
        await router.until_state(back, State.DOWN)
        await back.start()
        await router.until_state(back, State.READY)
        good.mode = back.mode = "held"
        asked = [asyncio.create_task(router.ask([f"text {number}"])) for number in range(2)]
        await eventually(lambda: len(good.batches) + len(back.batches) == 1 + len(asked))
        assert back.batches
        good.gate.set()
        back.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}


@pytest.mark.parametrize("how", ["restarted", "reset"])
async def test_lost_connection_to_only_replica_is_retried(how: str) -> None:
    """Restarted on its port, it leaves the router with a stale connection."""
    async with one_worker() as (router, worker):
        for number in range(5):
            if how == "reset":
                worker.script.append("reset")
            else:
                await worker.die()
                await worker.start()
                await router.until_state(worker, State.READY)
            assert (await router.ask([f"text {number}"])).status_code == 200
        await router.until_idle()


async def test_death_of_only_replica_returns_503() -> None:
    async with one_worker(lanes=1) as (router, worker):
        worker.script.append("held")
        asked = [asyncio.create_task(router.ask([f"text {number}"])) for number in range(5)]
        await worker.until_batches(1)
        await eventually(lambda: router.fleet.pools["retrieval"].queue.items == 4)
        await worker.die()
        for reply in await asyncio.gather(*asked):
            assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert int(reply.headers["retry-after"]) > 0
        await router.until_idle()
        await worker.start()
        await router.until_state(worker, State.READY)
        assert (await router.ask(["again"])).status_code == 200


async def test_rolling_restart_causes_no_errors() -> None:
    workers = [FakeWorker(dimensions=64) for _ in range(3)]
    # One lane each, so that all of them get batches.
    async with fake_workers(*workers), running_router(*workers, lanes=1) as router:
        load = OpenLoop(router, 4)
        for worker in workers:
            await load.answered(30)
            await worker.retire()
            await load.answered(30)
            await worker.come_back()
            await router.until_state(worker, State.READY)
        outcomes = await load.stop()
        assert set(outcomes) == {"ok"}, outcomes
        await router.until_idle()
