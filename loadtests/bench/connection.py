"""A small HTTP/1.1 client that costs less CPU than what is measured.

Benchmarks run on the machine of the servers. The load test harness takes 0.22 to 0.29 ms of CPU for a
request, as much as the router (0.26 ms); this client takes 0.05 ms. See docs/BENCHMARKS.md.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

BROKEN = 0
"""The status of a request whose connection broke before the reply was complete."""


class Answer(NamedTuple):
    """A reply, and when it was complete (monotonic). `overhead` is from X-Router-Overhead, in seconds."""

    status: int
    body: bytes
    end: float
    overhead: float | None


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST request."""
    parts = urlsplit(url)
    named = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Connection(asyncio.Protocol):
    """One connection. It carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parts: list[bytes] = []
        self._overhead: float | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.idle_since = 0.0

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect to the host and port of `url`. Raises `OSError`."""
        host, _, port = urlsplit(url).netloc.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, data: bytes) -> asyncio.Future[Answer]:
        """Send a request. Await the answer before the next one."""
        self._parts, self._overhead = [], None
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._finish(BROKEN)
        else:
            self._transport.write(data)
        return waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(BROKEN)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-router-overhead":
            self._overhead = float(value) / 1e3

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._finish(self._parser.get_status_code())

    def _finish(self, status: int) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            self.idle_since = now = time.monotonic()
            waiting.set_result(Answer(status, b"".join(self._parts), now, self._overhead))
