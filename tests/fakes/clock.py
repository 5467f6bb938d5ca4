"""Moves the event loop's clock, so that a test need not wait for a timeout."""

import asyncio


def skip(seconds: float) -> None:
    """Make the timers of the running event loop that end within `seconds` end now."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
