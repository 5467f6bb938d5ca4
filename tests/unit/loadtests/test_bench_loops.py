"""Closed and open loops against servers on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from loadtests.bench.connection import BROKEN, post
from loadtests.bench.loops import Request, closed_loop, open_loop, poisson

Answer = Callable[[int], bytes | None]
"""The reply to the n-th request. None drops the connection."""


def test_poisson_gaps_are_exponential() -> None:
    moments = poisson(1000, 10, seed=1)
    assert abs(len(moments) - 10_000) < 400  # four standard deviations
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 10
    gaps = [after - before for before, after in pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)


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


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An address on which nothing listens."""
    async with server(lambda number: None) as url:
        pass
    yield url


def reply(status: int, body: bytes = b"vector") -> bytes:
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def requests(url: str, count: int, keep: bool = False) -> list[Request]:
    return [Request(number, post(url + "/", b"%d" % number), 2, keep) for number in range(count)]


async def test_closed_loop_counts_failures_by_status() -> None:
    def answer(number: int) -> bytes | None:
        return {0: reply(500), 1: reply(429), 2: None, 3: reply(200, b"")}.get(number, reply(200))

    async with server(answer) as url:
        done = await closed_loop(url, requests(url, 40), 4, lambda body: [])
    assert sorted(each.request.number for each in done.replies) == list(range(40))
    assert sorted(each.status for each in done.replies if not each.good) == [BROKEN, 200, 429, 500]
    assert done.items_per_second > 0


async def test_failures_make_no_rate() -> None:
    async with server(lambda number: reply(500)) as url:
        done = await closed_loop(url, requests(url, 40), 4, lambda body: [])
    assert done.items_per_second == 0
    assert len(done.replies) == 40


@pytest.mark.parametrize("read_all", [False, True])
async def test_kept_replies_are_read(read_all: bool) -> None:
    bodies: list[bytes] = []
    async with server(lambda number: reply(200)) as url:
        done = await closed_loop(
            url, requests(url, 3, keep=True), 2, lambda body: bodies.append(body) or [], read_all=read_all
        )
    assert bodies == [b"vector"] * 3
    assert set(done.vectors) == {0, 1, 2}


async def test_closed_loop_needs_a_server() -> None:
    async with nobody() as url:
        with pytest.raises(OSError, match=r"refused|Connect"):
            await closed_loop(url, requests(url, 3), 1, lambda body: [])


async def test_open_loop_does_not_wait_for_replies() -> None:
    """The server replies only once all requests are there."""
    gate = asyncio.Barrier(8)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(reply(200))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening, asyncio.timeout(30):
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        replies = await open_loop(url, requests(url, 8), [0.001 * number for number in range(8)])
    assert [each.status for each in replies] == [200] * 8
    dues = sorted(each.due for each in replies)
    assert [after - before for before, after in pairwise(dues)] == pytest.approx([0.001] * 7)


async def test_open_loop_counts_refused_connections() -> None:
    async with nobody() as url:
        replies = await open_loop(url, requests(url, 5), [0.0] * 5)
    assert [each.status for each in replies] == [BROKEN] * 5


async def test_open_loop_counts_unanswered_requests() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(30):
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        replies = await open_loop(url, requests(url, 3), [0.0, 0.001, 0.002], patience=0.05)
    listening.close()
    assert sorted(each.request.number for each in replies) == [0, 1, 2]
    assert [each.status for each in replies] == [BROKEN] * 3
