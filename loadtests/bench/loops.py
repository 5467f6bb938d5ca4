"""Closed and open loops of requests."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.bench.connection import BROKEN, Answer, Connection

Vector = NDArray[np.float32]
Read = Callable[[bytes], list[Vector]]
# Shorter than the idle time after which servers close a connection (uvicorn: 5 s).
REUSE_SECONDS = 2.0
PATIENCE_SECONDS, ROUND_SECONDS = 30.0, 300.0


class Request(NamedTuple):
    """A request's bytes and its number of items. With `keep` the reply's vectors are read."""

    number: int
    data: bytes
    items: int = 1
    keep: bool = False


class Reply(NamedTuple):
    """A reply. Times are monotonic seconds; `due` is when the request was to be sent, `size` in bytes."""

    request: Request
    status: int
    due: float
    end: float
    size: int
    overhead: float | None = None
    body: bytes | None = None

    @property
    def good(self) -> bool:
        return self.status == 200 and self.size > 0


class Round(NamedTuple):
    """All replies, items a second under full load, and the vectors of kept replies by request."""

    replies: list[Reply]
    items_per_second: float
    vectors: dict[int, list[Vector]]


async def closed_loop(
    url: str, requests: Iterable[Request], connections: int, read: Read, *, read_all: bool = False
) -> Round:
    """Keep all connections busy until the requests run out. Raises `OSError` when nothing listens.

    The rate ends when the first connection falls idle. With `read_all` a client reads each kept reply before
    its next request; otherwise they are read after the load.
    """
    replies: list[Reply] = []
    vectors: dict[int, list[Vector]] = {}
    left = iter(requests)
    full_until: float | None = None

    async def user(connection: Connection) -> None:
        nonlocal full_until
        for request in left:
            if not connection.is_open:
                connection = await Connection.open(url)
            due = time.monotonic()
            reply = _reply(request, due, await connection.ask(request.data))
            if read_all and reply.body is not None:
                vectors[request.number] = read(reply.body)
                reply = reply._replace(body=None, end=time.monotonic())
            replies.append(reply)
        full_until = full_until or time.monotonic()
        connection.close()

    opened = [await Connection.open(url) for _ in range(connections)]
    begin = time.monotonic()
    async with asyncio.timeout(ROUND_SECONDS):
        await asyncio.gather(*map(user, opened))
    assert full_until is not None
    items = sum(reply.request.items for reply in replies if reply.good and reply.end <= full_until)
    vectors |= {reply.request.number: read(reply.body) for reply in replies if reply.body is not None}
    return Round(replies, items / (full_until - begin), vectors)


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of independent arrivals within `seconds`, on average `rate` a second."""
    draw, moments, moment = random.Random(seed), list[float](), 0.0
    while (moment := moment + draw.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


async def open_loop(
    url: str, requests: Sequence[Request], moments: Sequence[float], patience: float = PATIENCE_SECONDS
) -> list[Reply]:
    """Send each request at its moment, whether earlier ones are answered or not. One reply for each.

    Requests without an answer `patience` seconds after the last moment count as broken.
    """
    replies: list[Reply] = []
    idle: list[Connection] = []
    unanswered: set[asyncio.Future[Answer]] = set()

    def done(connection: Connection, request: Request, due: float, answer: asyncio.Future[Answer]) -> None:
        unanswered.discard(answer)
        if answer.cancelled():
            replies.append(_broken(request, due))
        else:
            replies.append(_reply(request, due, answer.result()))
            idle.append(connection)

    def send(connection: Connection, request: Request, due: float) -> None:
        answer = connection.ask(request.data)
        unanswered.add(answer)
        answer.add_done_callback(partial(done, connection, request, due))

    async def send_on_new(request: Request, due: float) -> None:
        try:
            send(await Connection.open(url), request, due)
        except (OSError, asyncio.CancelledError):
            replies.append(_broken(request, due))

    begin = time.monotonic()
    opening = []
    for request, moment in zip(requests, moments, strict=True):
        due = begin + moment
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if connection := _reusable(idle):
            send(connection, request, due)
        else:
            # A task only here: for every request it would cost half as much CPU again.
            opening.append(asyncio.create_task(send_on_new(request, due)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await asyncio.gather(*opening)
            while unanswered:
                await asyncio.wait(unanswered)
    late = list(unanswered)
    for answer in late:
        answer.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for connection in idle:
        connection.close()
    return replies


def _reusable(idle: list[Connection]) -> Connection | None:
    while idle:
        connection = idle.pop()
        if connection.is_open and time.monotonic() - connection.idle_since < REUSE_SECONDS:
            return connection
        connection.close()
    return None


def _reply(request: Request, due: float, answer: Answer) -> Reply:
    body = answer.body if request.keep and answer.status == 200 else None
    return Reply(request, answer.status, due, answer.end, len(answer.body), answer.overhead, body)


def _broken(request: Request, due: float) -> Reply:
    return Reply(request, BROKEN, due, time.monotonic(), 0)
