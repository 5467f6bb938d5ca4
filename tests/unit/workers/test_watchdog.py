"""The watchdog ends a stuck worker, and no other."""

import asyncio
import threading

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.workers.watchdog import Watchdog

MAX_CHECKS = 100


class WatchedEngine:
    """An engine that counts the checks; if it `works`, it makes a step before each."""

    def __init__(self, busy: bool, works: bool = False) -> None:
        self.busy = busy
        self.checks = threading.Semaphore(0)
        self._works = works
        self._steps = 0

    @property
    def steps(self) -> int:
        self.checks.release()
        self._steps += self._works
        return self._steps


def watchdog_of(engine: WatchedEngine, ended: threading.Event) -> Watchdog:
    watchdog = Watchdog(engine, MAX_CHECKS / 1000, ended.set, check_seconds=1 / 1000)
    watchdog.start(asyncio.get_running_loop())
    return watchdog


async def test_busy_engine_without_steps_ends_worker() -> None:
    ended = threading.Event()
    watchdog = watchdog_of(WatchedEngine(busy=True), ended)
    assert await asyncio.to_thread(ended.wait, GUARD_SECONDS)
    watchdog.close()


@pytest.mark.parametrize("engine", [WatchedEngine(busy=False), WatchedEngine(busy=True, works=True)])
async def test_idle_or_working_engine_lives(engine: WatchedEngine) -> None:
    ended = threading.Event()
    watchdog = watchdog_of(engine, ended)
    for _ in range(3 * MAX_CHECKS):
        assert await asyncio.to_thread(engine.checks.acquire, timeout=GUARD_SECONDS)
    assert not ended.is_set()
    watchdog.close()


async def test_stuck_event_loop_ends_worker() -> None:
    ended = threading.Event()
    watchdog = watchdog_of(WatchedEngine(busy=False), ended)
    # Blocks the event loop.
    assert ended.wait(GUARD_SECONDS)
    watchdog.close()
