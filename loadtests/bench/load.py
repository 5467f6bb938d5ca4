"""How load is put on: in a closed loop, where the next request follows a reply, or at moments set before."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.bench.http import BROKEN, Connection, Reply, Request, connect

Vector = NDArray[np.float32]
Read = Callable[[bytes], list[Vector]]
# Below the idle time after which servers close (uvicorn: 5 s), so that no request meets a closing connection.
REUSE_SECONDS = 2.0
# What takes longer is a fault to be counted, and no reason to wait for ever.
PATIENCE_SECONDS, ROUND_SECONDS = 30.0, 300.0


class Stream(NamedTuple):
    """Requests to one address, over so many connections."""

    url: str
    requests: Iterable[Request]
    connections: int


class Round(NamedTuple):
    """All replies, the items a second while the load was full, and the vectors of replies that were kept."""

    replies: list[Reply]
    items_per_second: float
    vectors: dict[int, list[Vector]]


async def closed_loop(streams: Sequence[Stream], read: Read, *, read_all: bool = False) -> Round:
    """Keep every connection busy until the requests run out.

    The rate is that of the time until the first stream has no request left to send, so the end, when
    connections fall idle one by one, is not in it. With `read_all` each kept reply is read before the next
    request follows, as a client would that needs what is in it; otherwise after the load.
    """
    replies: list[Reply] = []
    vectors: dict[int, list[Vector]] = {}
    finished = asyncio.get_running_loop().create_future()
    full_until: float | None = None
    shares: dict[Connection, tuple[str, Iterator[Request]]] = {}
    busy = sum(stream.connections for stream in streams)
    replacing: set[asyncio.Task[None]] = set()

    def send_next(connection: Connection) -> None:
        nonlocal busy, full_until
        request = next(shares[connection][1], None)
        if request is not None:
            return connection.send(request)
        full_until = full_until or time.monotonic()
        busy -= 1
        if not busy:
            finished.set_result(None)

    def done(connection: Connection, reply: Reply) -> None:
        if read_all and reply.body is not None:
            vectors[reply.request.number] = read(reply.body)
            reply = reply._replace(body=None, end=time.monotonic())
        replies.append(reply)
        if reply.status == BROKEN:
            replacing.add(asyncio.ensure_future(replace(connection)))
        else:
            send_next(connection)

    async def replace(broken: Connection) -> None:
        url, requests = shares.pop(broken)
        try:
            connection = await connect(url, done)
        except OSError as error:
            finished.set_exception(error)
        else:
            shares[connection] = url, requests
            send_next(connection)

    for stream in streams:
        requests = iter(stream.requests)
        for _ in range(stream.connections):
            shares[await connect(stream.url, done)] = stream.url, requests
    begin = time.monotonic()
    for connection in list(shares):
        send_next(connection)
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            await finished
    finally:
        for connection in shares:
            connection.close()
    assert full_until is not None
    items = sum(reply.request.items for reply in replies if reply.good and reply.end <= full_until)
    vectors |= {reply.request.number: read(reply.body) for reply in replies if reply.body is not None}
    return Round(replies, items / (full_until - begin), vectors)


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments within `seconds` at which independent requests arrive, `rate` a second on average."""
    draw, moments, moment = random.Random(seed), list[float](), 0.0
    while (moment := moment + draw.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


async def at_moments(
    moments: Iterable[float],
    act: Callable[[int, float], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> None:
    """Call `act(number, due)` for each moment, counted from now, when it has come.

    Whoever is late catches up: no moment is left out or moved, and `due` is what it was.
    """
    begin = clock()
    for number, moment in enumerate(moments):
        due = begin + moment
        if (wait := due - clock()) > 0:
            await sleep(wait)
        act(number, due)


async def open_loop(
    url: str, requests: Sequence[Request], moments: Sequence[float], patience: float = PATIENCE_SECONDS
) -> list[Reply]:
    """Send each request at its moment, whatever has become of those before; a reply for each.

    Those still unanswered `patience` seconds after the last moment count as broken. Requests are numbered
    by their place in the list.
    """
    replies: list[Reply] = []
    idle: list[Connection] = []
    made: list[Connection] = []
    opening: set[asyncio.Task[None]] = set()
    sent: dict[int, tuple[float, float]] = {}
    ended = asyncio.Event()

    def count(reply: Reply) -> None:
        if sent.pop(reply.request.number, None) is not None:
            replies.append(reply)
        if len(replies) == len(moments):
            ended.set()

    def done(connection: Connection, reply: Reply) -> None:
        count(reply)
        if connection.open:
            idle.append(connection)

    def broken(request: Request, due: float, start: float) -> None:
        count(Reply(request, BROKEN, due, start, time.monotonic(), 0, None, None))

    async def on_new(request: Request, due: float, start: float) -> None:
        try:
            connection = await connect(url, done)
        except OSError:
            broken(request, due, start)
        else:
            made.append(connection)
            connection.send(request, due, start)

    def send(number: int, due: float) -> None:
        now = time.monotonic()
        sent[number] = due, now
        while idle:
            connection = idle.pop()
            if connection.open and now - connection.idle_since < REUSE_SECONDS:
                return connection.send(requests[number], due)
            connection.close()
        task = asyncio.ensure_future(on_new(requests[number], due, now))
        opening.add(task)
        task.add_done_callback(opening.discard)

    await at_moments(moments, send)
    with contextlib.suppress(TimeoutError):
        if moments:
            await asyncio.wait_for(ended.wait(), patience)
    for number, (due, start) in list(sent.items()):
        broken(requests[number], due, start)
    for task in opening:
        task.cancel()
    for connection in made:
        connection.close()
    return replies
