"""Slow hosts, slow names and greedy clients do not block other fetches."""

import asyncio
from ipaddress import ip_network

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site
from tests.unit.router.fetching import LIMIT
from triptych.router.media.fetch import (
    MAX_FETCHES_PER_CLIENT,
    MAX_FETCHES_PER_HOST,
    Fetcher,
)


async def test_slow_host_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    clock = loop.time
    both = (ip_network("127.0.0.0/30"),)
    async with (
        site(hangs) as slow,
        site(says(), "127.0.0.2") as quick,
        Fetcher(both, GUARD_SECONDS) as fetcher,
    ):
        tasks = [
            asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f"))
            for _ in range(4 * MAX_FETCHES_PER_CLIENT)
        ]
        await slow.until_requests(MAX_FETCHES_PER_HOST)
        assert await fetcher.fetch(quick.url, LIMIT, "f") == b"media"
        assert len(slow.requests) == MAX_FETCHES_PER_HOST
        # An hour passes: those with a slot time out, and the next ones start with their full time.
        monkeypatch.setattr(loop, "time", lambda: clock() + 3600)
        await eventually(lambda: sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST)
        await slow.until_requests(2 * MAX_FETCHES_PER_HOST)
        assert sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All slots are free again.
        again = [
            asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f")) for _ in range(MAX_FETCHES_PER_HOST)
        ]
        await slow.until_requests(3 * MAX_FETCHES_PER_HOST)
        for task in again:
            task.cancel()
        await asyncio.gather(*again, return_exceptions=True)
