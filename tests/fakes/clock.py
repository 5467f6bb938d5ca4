"""Moves the event loop's clock, so that a test need not wait for a timeout."""

import asyncio
import time
from collections.abc import Callable

from tests.fakes.hang_guard import GUARD_SECONDS


def skip(seconds: float) -> None:
    """Make the timers of the running event loop that end within `seconds` end now."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


async def pass_until(condition: Callable[[], bool]) -> None:
    """Let seconds pass, one after the other as for periodic tasks, until `condition` holds."""
    ends = time.monotonic() + GUARD_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it never holds"
        skip(1)
        await asyncio.sleep(0.002)
