"""Clients that misbehave on raw sockets: they stall, stop reading or break off."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

# A router that keeps such a client longer than this has a leak.
PATIENCE_SECONDS = 20.0
HEAD = "POST /v1/embeddings HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n"


def _request(texts: int, **fields: object) -> bytes:
    body = json.dumps({"input": ["a text"] * texts, "task": "retrieval.query", **fields})
    return f"{HEAD}content-length: {len(body)}\r\n\r\n{body}".encode()


async def stalls_in_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends half of the head, and waits."""
    writer.write(HEAD.encode())
    await reader.read()


async def stalls_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Announces 8 MiB, sends one, and waits."""
    writer.write(f"{HEAD}content-length: {8 << 20}\r\n\r\n".encode() + b" " * (1 << 20))
    await reader.read()


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks for several large replies and reads none of them."""
    for _ in range(4):
        writer.write(_request(200))
        await writer.drain()
    await asyncio.sleep(PATIENCE_SECONDS)


async def reads_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a large reply a few bytes at a time."""
    writer.write(_request(20, return_multivector=True))
    while await reader.read(64):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def leaves_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Leaves without waiting for its reply."""
    writer.write(_request(50))
    await writer.drain()


CLIENTS: tuple[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], ...] = (
    stalls_in_the_head,
    stalls_in_the_body,
    never_reads,
    reads_slowly,
    leaves_early,
)


async def misbehave(host: str, port: int, clients: int, seed: int) -> None:
    """Keep `clients` of them connected, chosen at random, until cancelled."""
    chance = random.Random(seed)

    async def one_after_another() -> None:
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await _connected(host, port, chance.choice(CLIENTS))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one_after_another())


async def _connected(
    host: str, port: int, client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        await client(reader, writer)
    finally:
        # Not `close`, which would wait for what the router does not read.
        writer.transport.abort()
        # So that clients that leave at once do not fill a core.
        await asyncio.sleep(0.1)
