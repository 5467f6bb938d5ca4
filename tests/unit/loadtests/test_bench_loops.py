"""Closed and open loops against servers on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.fakes.hang_guard import hang_guard
from triptych.loadtests.bench.loops import BROKEN, Request, closed_loop, open_loop, post

Answer = Callable[[int], Awaitable[bytes | None]]
"""The reply to the n-th request. None drops the connection."""

# Nothing listens there.
NOWHERE = "http://127.0.0.1:1"


@asynccontextmanager
async def server(answer: Answer, opened: list[str] | None = None) -> AsyncIterator[str]:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        if opened is not None:
            opened.append("connection")
        while not reader.at_eof():
            # Each body is one byte, so that a request ends with it.
            if not (await reader.read(1 << 16)).endswith(b"\r\n\r\n."):
                break
            reply, count = answer(count), count + 1
            if (data := await reply) is None:
                break
            writer.write(data)
        writer.close()

    async with hang_guard(), await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def fixed(data: bytes | None) -> bytes | None:
    return data


def reply(status: int = 200, body: bytes = b"vector", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def requests(url: str, count: int) -> list[Request]:
    return [Request(number, post(url + "/", b"."), 2) for number in range(count)]


async def test_closed_loop_counts_failures_by_status() -> None:
    odd = {0: reply(500), 1: reply(429), 2: None, 3: reply(200, b"")}
    async with server(lambda number: fixed(odd.get(number, reply()))) as url:
        done = await closed_loop(url, requests(url, 40), 4)
    assert sorted(each.request.number for each in done.replies) == list(range(40))
    assert sorted(each.status for each in done.replies if not each.good) == [BROKEN, BROKEN, 429, 500]
    assert done.items_per_second > 0


@pytest.mark.parametrize(
    "data",
    [
        reply(),
        reply(headers="Connection: close\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nvect\r\n2\r\nor\r\n0\r\n\r\n",
    ],
)
async def test_bodies_are_read_whole(data: bytes) -> None:
    bodies: list[bytes] = []
    opened: list[str] = []
    async with server(lambda number: fixed(data), opened) as url:
        wanted = [each._replace(read=lambda body: bodies.append(body) or []) for each in requests(url, 3)]
        done = await closed_loop(url, wanted, 1)
    assert [each.status for each in done.replies] == [200] * 3
    assert bodies == [b"vector"] * 3
    assert len(opened) == (3 if b"close" in data else 1)


async def test_closed_loop_needs_a_server() -> None:
    with pytest.raises(OSError, match=r"refused|Connect"):
        await closed_loop(NOWHERE, requests(NOWHERE, 3), 1)


async def test_open_loop_does_not_wait_for_replies() -> None:
    everyone = asyncio.Barrier(8)

    async def once_all_are_there(number: int) -> bytes:
        await everyone.wait()
        return reply()

    async with server(once_all_are_there) as url:
        replies = await open_loop(url, requests(url, 8), [0.001 * number for number in range(8)])
    assert [each.status for each in replies] == [200] * 8
    dues = [each.due - replies[0].due for each in replies]
    assert dues == pytest.approx([0.001 * number for number in range(8)])


async def test_unanswered_requests_are_broken() -> None:
    released = asyncio.Event()

    async def late(number: int) -> None:
        await released.wait()

    async with server(late) as url:
        replies = await open_loop(url, requests(url, 3), [0.0, 0.001, 0.002], patience=0.05)
        released.set()
    assert [each.status for each in replies] == [BROKEN] * 3
