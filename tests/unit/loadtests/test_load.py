"""When load is sent, with a clock of our own, and what is counted of what comes back."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from loadtests.bench.http import BROKEN, Request, post
from loadtests.bench.load import Stream, at_moments, closed_loop, open_loop, poisson


class Clock:
    """Time that passes only in sleeps, and where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


async def test_each_moment_is_met() -> None:
    clock, sent = Clock(), list[tuple[int, float, float]]()
    await at_moments(
        [0.5, 1.0, 4.0], lambda number, due: sent.append((number, due, clock.now)), clock, clock.sleep
    )
    assert sent == [(0, 100.5, 100.5), (1, 101.0, 101.0), (2, 104.0, 104.0)]


async def test_whoever_is_late_catches_up_and_counts_from_the_moment_that_was_due() -> None:
    clock, sent = Clock(), list[tuple[float, float]]()

    def act(number: int, due: float) -> None:
        sent.append((due, clock.now))
        if number == 0:
            clock.now += 2.0

    await at_moments([1.0, 2.0, 2.5, 4.0], act, clock, clock.sleep)
    assert sent == [(101.0, 101.0), (102.0, 103.0), (102.5, 103.0), (104.0, 104.0)]


def test_arrivals_are_as_many_as_asked_for_and_not_evenly_spaced() -> None:
    moments = poisson(1000, 10, seed=1)
    assert abs(len(moments) - 10_000) < 400  # four standard deviations
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 10
    gaps = [after - before for before, after in pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)


Answer = Callable[[int], bytes | None]
"""What the n-th request is answered, None: the connection is dropped."""


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with_length = b"content-length: "
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                start = head.index(with_length) + len(with_length)
                await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
                reply, count = answer(count), count + 1
                if reply is None:
                    break
                writer.write(reply)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def reply(status: int, body: bytes = b"vector") -> bytes:
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def requests(url: str, count: int, keep: bool = False) -> list[Request]:
    return [Request(number, post(url + "/", b"%d" % number), 2, keep) for number in range(count)]


async def test_a_closed_loop_counts_what_failed_and_how() -> None:
    def answer(number: int) -> bytes | None:
        return {0: reply(500), 1: reply(429), 2: None, 3: reply(200, b"")}.get(number, reply(200))

    async with server(answer) as url:
        done = await closed_loop([Stream(url, requests(url, 40), 4)], lambda body: [])
    assert sorted(each.request.number for each in done.replies) == list(range(40))
    assert sorted(each.status for each in done.replies if not each.good) == [BROKEN, 200, 429, 500]


async def test_only_good_replies_make_the_rate() -> None:
    async with server(lambda number: reply(500)) as url:
        done = await closed_loop([Stream(url, requests(url, 40), 4)], lambda body: [])
    assert done.items_per_second == 0
    assert len(done.replies) == 40


async def test_kept_replies_are_read() -> None:
    async with server(lambda number: reply(200, b"vector")) as url:
        for read_all in (False, True):
            bodies: list[bytes] = []
            load = [Stream(url, requests(url, 3, keep=True), 2)]
            done = await closed_loop(load, lambda body: bodies.append(body) or [], read_all=read_all)  # noqa: B023
            assert bodies == [b"vector"] * 3
            assert set(done.vectors) == {0, 1, 2}


async def test_a_closed_loop_against_nobody_says_so() -> None:
    async with server(lambda number: reply(200)) as url:
        pass
    with pytest.raises(OSError, match=r"refused|Connect"):
        await closed_loop([Stream(url, requests(url, 3), 1)], lambda body: [])


async def test_an_open_loop_does_not_wait_for_replies() -> None:
    """No reply comes before all requests are there, so a loop that waited would never end."""
    arrived, gate = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await reader.readuntil(b"\r\n\r\n")
        arrived += 1
        if arrived == 8:
            gate.set()
        await gate.wait()
        writer.write(reply(200))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening, asyncio.timeout(10):
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        replies = await open_loop(url, requests(url, 8), [0.001 * number for number in range(8)])
    assert [each.status for each in replies] == [200] * 8


async def test_an_open_loop_counts_those_that_reach_nobody() -> None:
    async with server(lambda number: reply(200)) as url:
        pass
    replies = await open_loop(url, requests(url, 5), [random.random() / 100 for _ in range(5)])
    assert [each.status for each in replies] == [BROKEN] * 5


async def test_an_open_loop_counts_those_that_are_never_answered() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(10):
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        replies = await open_loop(url, requests(url, 3), [0.0, 0.001, 0.002], patience=0.05)
    listening.close()
    assert sorted(each.request.number for each in replies) == [0, 1, 2]
    assert [each.status for each in replies] == [BROKEN] * 3
