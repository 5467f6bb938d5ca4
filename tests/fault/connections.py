"""Raw connections to a router."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.router import RunningRouter

# A reply of 20 MB, far more than socket buffers hold.
LARGE = [f"text {number}" for number in range(400)]


@asynccontextmanager
async def connected(
    router: RunningRouter,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the router."""
    url = router.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def posted(texts: list[str]) -> bytes:
    body = json.dumps({"input": texts, "task": "retrieval.query"}).encode()
    return b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def body_of_the_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"/1.1 200 " in head
    [length] = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    return await reader.readexactly(int(length))
