"""The watchdog ends a stuck worker, and no other."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from tests.unit.workers.services import FakeEngine
from triptych.workers.watchdog import Watchdog


async def ends(engine: FakeEngine, each_check: Callable[[], None] = lambda: None) -> bool:
    """Whether a watchdog of 20 checks ends the worker within 60."""
    ended = threading.Event()
    watchdog = Watchdog(engine, 0.1, ended.set, 0.005)
    watchdog.start(asyncio.get_running_loop())
    try:
        for _ in range(60):
            each_check()
            if await asyncio.to_thread(ended.wait, 0.005):
                return True
        return False
    finally:
        watchdog.close()


@pytest.mark.parametrize(("busy", "stuck"), [(True, True), (False, False)])
async def test_engine_without_steps_is_stuck_if_busy(busy: bool, stuck: bool) -> None:
    assert await ends(FakeEngine(busy=busy)) == stuck


async def test_busy_engine_with_steps_lives() -> None:
    engine = FakeEngine(busy=True)

    def step() -> None:
        engine.steps += 1

    assert not await ends(engine, step)


async def test_stuck_event_loop_ends_worker() -> None:
    ended = threading.Event()
    watchdog = Watchdog(FakeEngine(), 0.1, ended.set, 0.005)
    watchdog.start(asyncio.get_running_loop())
    # Blocks the event loop.
    assert ended.wait(10)
    watchdog.close()
