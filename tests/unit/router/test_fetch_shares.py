"""Slow hosts, slow names and greedy clients do not block other fetches."""

import asyncio
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site
from tests.unit.router.fetching import LIMIT, LOOPBACK
from triptych.router.media.fetch import (
    MAX_FETCHES_PER_CLIENT,
    MAX_FETCHES_PER_HOST,
    Fetcher,
)


class NameServer(asyncio.DatagramProtocol):
    """Resolves quick.example to 127.0.0.1, and ignores all other questions."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        self.asked.add(question)
        if question.startswith(b"\5quick"):
            header = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            is_a = question[-4:-2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if is_a else b""
            self.transport.sendto((header if is_a else header[:6] + bytes(6)) + question + answer, address)


async def test_slow_names_block_no_others() -> None:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = aiohttp.AsyncResolver(nameservers=["127.0.0.1"], udp_port=port, timeout=30)
    slow = [f"http://slow-{number}.example/" for number in range(48)]
    try:
        async with site(says()) as server, Fetcher(LOOPBACK, GUARD_SECONDS, resolver) as fetcher:
            waiting = [asyncio.create_task(fetcher.fetch(url, LIMIT, "f")) for url in slow]
            await eventually(lambda: len(names.asked) >= len(slow))
            url = server.url.replace("127.0.0.1", "quick.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"media"
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert all(task.cancelled() for task in waiting)
    finally:
        transport.close()


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
