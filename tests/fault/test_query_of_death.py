"""Inputs that kill the worker that encodes them."""

import asyncio

import pytest

from tests.fakes.router import eventually, running_router
from tests.fakes.worker import DEADLY, FakeWorker, fake_workers
from triptych.router.pool.replica import State
from triptych.workers.admission import Admission


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


SOON = {"x-request-timeout-seconds": "0.2"}


async def test_deadly_input_is_blamed_after_its_client_has_left() -> None:
    worker = FakeWorker(dimensions=64)
    async with fake_workers(worker), running_router(worker, lanes=1, hold_seconds=60) as router:
        worker.fatal.clear()
        worker.script.append("held")
        first = asyncio.create_task(router.ask(["takes the lane"]))
        await worker.until_batches(1)
        innocent = asyncio.create_task(router.ask(["innocent"]))
        deadly = asyncio.create_task(router.ask([DEADLY], headers=SOON))
        await eventually(lambda: router.waiting_items == 2)
        worker.gate.set()
        assert (await first).status_code == 200
        await worker.until_batches(2)
        assert (await deadly).status_code == 504
        worker.fatal.set()
        assert (await innocent).status_code == 200
        assert (await router.ask([DEADLY])).status_code == 400
        assert worker.deaths == 2


async def test_death_is_remembered_across_requests() -> None:
    """The request fails, since no replica is left; sent again, its input is still a suspect."""
    worker = FakeWorker(dimensions=64)
    worker.returns = False
    async with fake_workers(worker), running_router(worker) as router:
        assert (await router.ask([DEADLY])).status_code == 503
        await worker.start()
        await router.until_state(worker, State.READY)
        assert (await router.ask([DEADLY])).status_code == 400
        assert worker.deaths == 2


async def test_success_clears_a_suspect() -> None:
    worker = FakeWorker(dimensions=64)
    async with fake_workers(worker), running_router(worker, hold_seconds=60) as router:
        worker.mode = "held"
        held = asyncio.create_task(router.ask(["a", "b"]))
        await worker.until_batches(1)
        worker.mode = "healthy"
        for _ in range(2):
            await worker.die()
            await worker.start()
            assert (await held).status_code == 200
            worker.mode = "held"
            held = asyncio.create_task(router.ask(["a", "b"]))
            await eventually(lambda: worker.active == 1)
            assert len(worker.batches[-1].items) == 2
            worker.mode = "healthy"
        worker.gate.set()
        assert (await held).status_code == 200


async def test_two_routers_refuse_no_innocent_input() -> None:
    """A worker with a suspect has nothing else, also from another router."""
    admission = Admission(100)
    worker = FakeWorker(dimensions=64)
    worker.admission = admission
    async with (
        fake_workers(worker),
        running_router(worker, hold_seconds=60) as one,
        running_router(worker, hold_seconds=60) as other,
    ):
        for number in range(5):
            texts = [[f"{number} {place}"] for place in range(10)]
            replies = await asyncio.gather(
                one.ask([f"{DEADLY} {number}"]), *map(one.ask, texts), *map(other.ask, texts)
            )
            deadly, *others = (reply.status_code for reply in replies)
            # So many deaths may spend the retry budget.
            assert deadly in (400, 503)
            assert set(others) <= {200, 503}
