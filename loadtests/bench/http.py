"""A load generator's HTTP/1.1: requests made up front, replies counted, few of them kept.

It shares the machine with what it measures, so it does as little as it can: no tasks, no futures, one
callback for each reply.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

BROKEN = 0
"""The status of a request whose connection failed before the reply was complete."""


class Request(NamedTuple):
    """Bytes to send, and how many items they ask for. `keep`: the reply's body is wanted."""

    number: int
    data: bytes
    items: int = 1
    keep: bool = False


class Reply(NamedTuple):
    """What came back: times in seconds of the monotonic clock, `size` of the body in bytes.

    `due` is when the request was to be sent, `start` when it was, or a connection for it begun. `overhead`
    is what the router says of its own time, in seconds.
    """

    request: Request
    status: int
    due: float
    start: float
    end: float
    size: int
    overhead: float | None
    body: bytes | None

    @property
    def good(self) -> bool:
        return self.status == 200 and self.size > 0


Done = Callable[["Connection", Reply], None]


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST, ready to be sent."""
    parts = urlsplit(url)
    named = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `done` is told of each reply."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._due = self._start = 0.0
        self._size = 0
        self._parts: list[bytes] = []
        self._overhead: float | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.idle_since = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: Request, due: float | None = None, start: float | None = None) -> None:
        """Send one; the one before must be done. `due` and `start` are now unless they were earlier."""
        self._request, self._size, self._overhead, self._parts = request, 0, None, []
        self._start = time.monotonic() if start is None else start
        self._due = self._start if due is None else due
        if self._transport is None:
            self._finish(BROKEN)
        else:
            self._transport.write(request.data)

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
        if self._request is not None:
            self._finish(BROKEN)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-router-overhead":
            self._overhead = float(value) / 1e3

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._request is not None and self._request.keep:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._request is not None:
            self._finish(self._parser.get_status_code())

    def _finish(self, status: int) -> None:
        request, self._request = self._request, None
        assert request is not None
        body = b"".join(self._parts) if request.keep and status == 200 else None
        self.idle_since = now = time.monotonic()
        self._done(
            self, Reply(request, status, self._due, self._start, now, self._size, self._overhead, body)
        )


async def connect(url: str, done: Done) -> Connection:
    """An open connection to the host of `url`. Raises `OSError`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(done), parts.hostname, parts.port
    )
    return connection
