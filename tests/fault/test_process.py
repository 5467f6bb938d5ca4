"""The router as a process: start and stop."""

import asyncio
import signal

import pytest

from tests.fakes.hang_guard import hang_guard
from tests.fakes.process import router_process, until_refused
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers


async def test_process_starts_and_serves() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), router_process(worker) as router:
        await router.until_it_answers("/health")
        await router.until_it_answers("/ready")
        check(await router.ask("a"), ["a"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_stop_signal_finishes_accepted_work(how: signal.Signals) -> None:
    worker = FakeWorker()
    worker.mode = "held"
    async with fake_workers(worker), router_process(worker, ROUTER_LANES="10") as router:
        await router.until_it_answers("/ready")
        asked = [asyncio.create_task(router.ask(f"text {number}")) for number in range(10)]
        async with hang_guard():
            while len(worker.items) < 10:
                await worker.until_batches(len(worker.batches) + 1)
        router.process.send_signal(how)
        await until_refused(str(router.client.base_url))
        assert router.process.returncode is None
        worker.gate.set()
        for number, reply in enumerate(await asyncio.gather(*asked)):
            check(reply, [f"text {number}"])
        async with hang_guard():
            assert await router.process.wait() == 0
