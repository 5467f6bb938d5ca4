"""The time after which a wait in a test counts as hung. It guards; it asserts nothing."""

import asyncio

# A loaded machine may need ten times as long as an idle one.
GUARD_SECONDS = 60.0


def hang_guard() -> asyncio.Timeout:
    """Fail the block when it hangs."""
    return asyncio.timeout(GUARD_SECONDS)
