"""The time after which a wait in a test counts as hung. It guards; it asserts nothing."""

import asyncio

# Only a hang takes so long, also on a loaded machine.
GUARD_SECONDS = 300.0


def hang_guard() -> asyncio.Timeout:
    """Fail the block when it hangs."""
    return asyncio.timeout(GUARD_SECONDS)
