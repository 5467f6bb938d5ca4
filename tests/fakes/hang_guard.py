"""The time after which a wait in a test counts as hung. It guards; it asserts nothing."""

import asyncio
from collections.abc import Callable

# Only a hang takes so long, also on a loaded machine.
GUARD_SECONDS = 300.0


def hang_guard() -> asyncio.Timeout:
    """Fail the block when it hangs."""
    return asyncio.timeout(GUARD_SECONDS)


async def eventually(condition: Callable[[], bool], seconds: float = GUARD_SECONDS) -> None:
    """Poll until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
