"""Closed and open loops of requests, by an HTTP client that costs less CPU than what is measured.

The load generator shares the machine with the servers. docs/BENCHMARKS.md compares HTTP clients.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import aiohttp
import numpy as np
from numpy.typing import NDArray

from triptych.loadtests.arrivals import due_times
from triptych.loadtests.dialects import Call
from triptych.loadtests.results import Segment

Vector = NDArray[np.float32]
Read = Callable[[bytes], list[Vector]]
BROKEN = 0
"""The status of a request without a complete reply."""
TIMEOUT_SECONDS = 30.0
# Shorter than the idle time after which servers close a connection (uvicorn: 5 s).
REUSE_SECONDS = 2.0


class Request(NamedTuple):
    """A request and its number of items. With `read`, the client reads the reply's vectors."""

    number: int
    call: Call
    items: int = 1
    read: Read | None = None


class Reply(NamedTuple):
    """A reply. Times are monotonic seconds: when the request was due, and when the reply was read."""

    request: Request
    status: int
    due: float
    end: float
    vectors: Sequence[Vector] = ()

    @property
    def good(self) -> bool:
        return self.status == 200


class Round(NamedTuple):
    """Replies, items a second under full load, and replies to other requests sent at the same time."""

    replies: list[Reply]
    items_per_second: float
    figures: Mapping[str, float] = {}
    beside: Sequence[Reply] = ()


def client(connections: int = 0, patience: float = TIMEOUT_SECONDS) -> aiohttp.ClientSession:
    """An HTTP client with so many connections (0: any number)."""
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=REUSE_SECONDS)
    timeout = aiohttp.ClientTimeout(total=patience)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


async def ask(session: aiohttp.ClientSession, request: Request, due: float) -> Reply:
    """The reply to a request, with status `BROKEN` for network errors and timeouts."""
    url, data, headers = request.call
    try:
        async with session.post(url, data=data, headers=headers) as response:
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return Reply(request, BROKEN, due, time.monotonic())
    now = time.monotonic()
    vectors = request.read(body) if request.read and status == 200 else ()
    return Reply(request, status if body else BROKEN, due, now, vectors)


async def closed_loop(requests: Iterable[Request], connections: int) -> Round:
    """Keep all connections busy until the requests run out. The rate ends when the first falls idle."""
    replies: list[Reply] = []
    idle_at: list[float] = []
    left = iter(requests)

    async def user() -> None:
        for request in left:
            replies.append(await ask(session, request, time.monotonic()))
        idle_at.append(time.monotonic())

    async with client(connections) as session:
        begin = time.monotonic()
        await asyncio.gather(*(user() for _ in range(connections)))
    items = sum(reply.request.items for reply in replies if reply.good and reply.end <= idle_at[0])
    return Round(replies, items / (idle_at[0] - begin))


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of independent arrivals within `seconds`, on average `rate` a second."""
    segment = Segment(name="open loop", seconds=seconds, rate=(rate, rate))
    return list(due_times(segment, "poisson", 0, 1, random.Random(seed)))


async def open_loop(
    requests: Sequence[Request], moments: Sequence[float], patience: float = TIMEOUT_SECONDS
) -> list[Reply]:
    """Send each request at its moment, whether earlier ones are answered or not. One reply for each.

    A request without an answer for `patience` seconds counts as broken.
    """
    async with client(patience=patience) as session:
        begin = time.monotonic()
        sending = []
        for request, moment in zip(requests, moments, strict=True):
            # Also when late: replies need the processor too.
            await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
            sending.append(asyncio.create_task(ask(session, request, begin + moment)))
        return await asyncio.gather(*sending)
