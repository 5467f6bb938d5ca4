"""Closed and open loops of requests, by an HTTP client that costs less CPU than what is measured.

The load generator shares the machine with the servers. docs/BENCHMARKS.md compares HTTP clients.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from triptych.loadtests.arrivals import due_times
from triptych.loadtests.results import Segment

Vector = NDArray[np.float32]
Read = Callable[[bytes], list[Vector]]
BROKEN = 0
"""The status of a request without a complete reply."""
TIMEOUT_SECONDS = 30.0
# Shorter than the idle time after which servers close a connection (uvicorn: 5 s).
REUSE_SECONDS = 2.0
BUFFER_BYTES = 1 << 20
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")


class Request(NamedTuple):
    """A request's bytes and its number of items. With `read`, the client reads the reply's vectors."""

    number: int
    data: bytes
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

    @property
    def seconds(self) -> float:
        return self.end - self.due


class Round(NamedTuple):
    """Replies, items a second under full load, and replies to other requests sent at the same time."""

    replies: list[Reply]
    items_per_second: float
    figures: Mapping[str, float] = {}
    beside: Sequence[Reply] = ()


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST request."""
    parts = urlsplit(url)
    named = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Connection:
    """A connection to the host of `url`. It carries one request at a time, and opens again when needed."""

    def __init__(self, url: str, patience: float = TIMEOUT_SECONDS) -> None:
        self._address = urlsplit(url)
        self._patience = patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._idle_since = 0.0

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The open streams. Raises `OSError` when nothing listens."""
        if self._streams:
            reader, writer = self._streams
            stale = time.monotonic() - self._idle_since > REUSE_SECONDS
            if stale or reader.at_eof() or writer.is_closing():
                self.close()
        if not self._streams:
            host, port = self._address.hostname, self._address.port
            self._streams = await asyncio.open_connection(host, port, limit=BUFFER_BYTES)
            self._idle_since = time.monotonic()
        return self._streams

    async def ask(self, request: Request, due: float) -> Reply:
        """The reply to a request, with status `BROKEN` for network errors and timeouts."""
        try:
            async with asyncio.timeout(self._patience):
                status, body = await self._exchange(request.data)
        except (OSError, EOFError):
            self.close()
            return Reply(request, BROKEN, due, time.monotonic())
        vectors = request.read(body) if request.read and status == 200 else ()
        self._idle_since = now = time.monotonic()
        return Reply(request, status if body else BROKEN, due, now, vectors)

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, data: bytes) -> tuple[int, bytes]:
        reader, writer = await self.open()
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if length := LENGTH.search(head):
            body = await reader.readexactly(int(length[1]))
        else:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body


async def closed_loop(url: str, requests: Iterable[Request], connections: int) -> Round:
    """Keep all connections busy until the requests run out. Raises `OSError` when nothing listens.

    The rate ends when the first connection falls idle.
    """
    replies: list[Reply] = []
    idle_at: list[float] = []
    left = iter(requests)

    async def user(connection: Connection) -> None:
        for request in left:
            replies.append(await connection.ask(request, time.monotonic()))
        idle_at.append(time.monotonic())
        connection.close()

    users = [Connection(url) for _ in range(connections)]
    for connection in users:
        await connection.open()
    begin = time.monotonic()
    await asyncio.gather(*map(user, users))
    items = sum(reply.request.items for reply in replies if reply.good and reply.end <= idle_at[0])
    return Round(replies, items / (idle_at[0] - begin))


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of independent arrivals within `seconds`, on average `rate` a second."""
    segment = Segment(name="open loop", seconds=seconds, rate=rate)
    return list(due_times(segment, "poisson", 0, 1, random.Random(seed)))


async def open_loop(
    url: str, requests: Sequence[Request], moments: Sequence[float], patience: float = TIMEOUT_SECONDS
) -> list[Reply]:
    """Send each request at its moment, whether earlier ones are answered or not. One reply for each.

    A request without an answer for `patience` seconds counts as broken.
    """
    idle: list[Connection] = []

    async def send(request: Request, due: float) -> Reply:
        connection = idle.pop() if idle else Connection(url, patience)
        reply = await connection.ask(request, due)
        idle.append(connection)
        return reply

    begin = time.monotonic()
    sending = []
    for request, moment in zip(requests, moments, strict=True):
        # Also when late: replies need the processor too.
        await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
        sending.append(asyncio.create_task(send(request, begin + moment)))
    replies = await asyncio.gather(*sending)
    for connection in idle:
        connection.close()
    return replies
