"""Compressed request bodies: every coding that is accepted, broken streams, and bombs."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import httpx
import pytest

from tests.unit.router.apps import Workers
from triptych.router.content_encoding import INPUT_BYTES, OUTPUT_BYTES
from triptych.router.errors import TooLarge
from triptych.router.http import Message, Request
from triptych.router.memory import Budget
from triptych.workers.shared.contract import Text

BODY = b'{"input": ["%s", "two"]}' % b"".join(b"%d and " % number for number in range(50))


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def in_members(data: bytes) -> bytes:
    """A gzip file of several members, some empty, with zeros between and after them."""
    third = len(data) // 3
    parts = [b"", data[:third], b"", data[third : 2 * third], data[2 * third :]]
    return bytes(3).join(map(gzip.compress, parts)) + bytes(700)


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("GZip", gzip.compress),
    (" x-gzip ", gzip.compress),
    ("gzip", in_members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("", bytes),
]


def of(pieces: Iterable[bytes], coding: str) -> Request:
    """A request whose body comes in `pieces`."""
    left: Iterator[bytes] = iter(pieces)

    async def receive() -> Message:
        piece = next(left, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"content-encoding", coding.encode())]
    return Request({"method": "POST", "path": "/", "headers": headers}, receive, Budget(1 << 30))


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_body_is_read_in_any_pieces(coding: str, compress: Callable[[bytes], bytes], size: int) -> None:
    data = compress(BODY)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert await of(pieces, coding).body(len(BODY)) == BODY
    with pytest.raises(TooLarge, match=f"over {len(BODY) - 1} bytes"):
        await of(pieces, coding).body(len(BODY) - 1)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_endpoints_accept_compression(client: httpx.AsyncClient, workers: Workers, path: str) -> None:
    body = b'{"input": "zipped", "query": "a", "documents": ["zipped"]}'
    headers = {"content-encoding": "gzip"}
    reply = await client.post(path, content=gzip.compress(body), headers=headers)
    assert reply.status_code == 200
    [item] = [item for batch in workers.batches for item in batch.items]
    assert isinstance(item.content, Text)
    assert item.content.text == "zipped"


# A fixed time, because test names contain these bytes.
WHOLE = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("coding", "data", "says"),
    [
        ("gzip", WHOLE[:-1], "ends too early"),
        ("gzip", b"", "ends too early"),
        ("gzip", WHOLE + WHOLE[:5], "ends too early"),
        ("gzip", BODY, "is broken"),
        ("gzip", WHOLE[:-8] + bytes(8), "is broken"),
        ("gzip", WHOLE + BODY, "is broken"),
        ("deflate", zlib.compress(BODY)[:-1], "ends too early"),
        ("deflate", b"\x78", "ends too early"),
        ("deflate", zlib.compress(BODY) + b"x", "has bytes after its end"),
        ("deflate", WHOLE, "is broken"),
    ],
)
async def test_broken_stream_is_refused(
    client: httpx.AsyncClient, coding: str, data: bytes, says: str
) -> None:
    reply = await client.post("/v1/embeddings", content=data, headers={"content-encoding": coding})
    assert reply.status_code == 422
    [fault] = reply.json()["errors"]
    assert (fault["field"], fault["type"]) == ("body", "content_encoding")
    assert fault["message"] == f"the {coding} stream {says}"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "gzip;q=1", "x" * 10_000])
async def test_other_codings_return_415(client: httpx.AsyncClient, coding: str) -> None:
    reply = await client.post("/v1/embeddings", content=WHOLE, headers={"content-encoding": coding})
    assert (reply.status_code, reply.json()["code"]) == (415, "INPUT_ENCODING_UNSUPPORTED")
    assert reply.headers["accept-encoding"] == "gzip, deflate"
    assert len(reply.content) < 1000


async def test_broken_stream_is_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(20):
            sent += 1
            yield b"this is no gzip"

    reply = await client.post("/v1/embeddings", content=pieces(), headers={"content-encoding": "gzip"})
    assert (reply.status_code, sent) == (422, 20)


async def test_bomb_takes_little_memory() -> None:
    limit = 4 << 20
    data = gzip.compress(bytes(128 << 20))
    for pieces in ([data], [data[at : at + 50_000] for at in range(0, len(data), 50_000)]):
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge):
                await of(pieces, "gzip").body(limit)
            # A growing buffer has an eighth to spare.
            assert tracemalloc.get_traced_memory()[1] < limit * 9 // 8 + 4 * OUTPUT_BYTES
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        (gzip.compress(bytes(32 << 20), mtime=0), (32 << 20) // OUTPUT_BYTES),
        (gzip.compress(b"", mtime=0) * 20_000, 20 * 20_000 // INPUT_BYTES),
    ],
    ids=["one large member", "many empty members"],
)
async def test_decompression_yields_to_tasks(data: bytes, steps: int) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await of([data], "gzip").body(64 << 20)
    task.cancel()
    assert turns >= steps
