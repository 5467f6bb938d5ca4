"""Moves the event loop's clock, so that a test need not wait for a timeout."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.fakes.hang_guard import GUARD_SECONDS

T = TypeVar("T")


def run_without_waiting(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` with a clock that only moves when nothing is ready: it jumps to the next timer."""
    selector = selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    now, poll = 0.0, selector.select

    def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        nonlocal now
        if timeout is None:
            return poll(None)
        now += timeout
        return poll(0)

    selector.select = select  # type: ignore[method-assign]
    loop.time = lambda: now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


class _Ahead:
    """A clock that is `seconds` ahead of `now`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds = 0.0

    def __call__(self) -> float:
        return self._now() + self.seconds


def skip(seconds: float) -> None:
    """Make the timers of the running event loop that end within `seconds` end now."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop.time, _Ahead):
        loop.time = _Ahead(loop.time)  # type: ignore[method-assign]
    loop.time.seconds += seconds


async def pass_until(condition: Callable[[], bool]) -> None:
    """Let seconds pass, one after the other as for periodic tasks, until `condition` holds."""
    ends = time.monotonic() + GUARD_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it never holds"
        skip(1)
        await asyncio.sleep(0.002)
