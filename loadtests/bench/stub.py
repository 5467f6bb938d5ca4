"""A worker that answers at once, to measure the router alone.

    python -m loadtests.bench.stub PORT STATUS

With status 200 every item gets the same unit vector, from frames made in advance. With another status every
batch gets that status, while the worker still says it is ready.
"""

import asyncio
import sys
from typing import cast

import httptools
import msgspec
import numpy as np
import uvloop

from workers.shared.contract import (
    ENCODE_PATH,
    INFO_PATH,
    READY_PATH,
    SPACE_HEADER,
    Info,
    Vector,
    encode_frame,
    encode_info,
    space_header,
)

MOST_ITEMS, TOKENS, DIMENSIONS = 1024, 22, 2048


class Batch(msgspec.Struct):
    """The part of a request that the stub reads."""

    items: list[msgspec.Raw]


class Answers:
    """Replies made in advance."""

    def __init__(self, status: int) -> None:
        info = Info(
            task="retrieval",
            model="stub",
            space="0" * 16,
            instance="stub",
            revision=None,
            dimensions=DIMENSIONS,
            multivector_dimensions=None,
            max_tokens=32_768,
            batch_tokens=8192,
            versions={},
        )
        values = np.random.default_rng(0).standard_normal(DIMENSIONS).astype("<f4")
        data = (values / np.linalg.norm(values)).tobytes()
        self._frames = [
            encode_frame(Vector(index, TOKENS, (DIMENSIONS,), data)) for index in range(MOST_ITEMS)
        ]
        self._count = msgspec.msgpack.Decoder(Batch).decode
        self._status = status
        self._space = f"{SPACE_HEADER}: {space_header(info.task, info.space)}"
        self._info = reply(200, encode_info(info))
        self._failure = reply(status, b"{}")

    def to(self, path: bytes, body: bytes) -> bytes:
        """The reply to a request."""
        if path == ENCODE_PATH.encode():
            if self._status != 200:
                return self._failure
            return reply(200, b"".join(self._frames[: len(self._count(body).items)]), self._space)
        if path == INFO_PATH.encode():
            return self._info
        return reply(200 if path == READY_PATH.encode() else 404, b"{}")


def reply(status: int, body: bytes, header: str = "server: stub") -> bytes:
    return f"HTTP/1.1 {status} -\r\n{header}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Stub(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._transport.write(self._answers.to(self._url, self._body))


async def serve(port: int, status: int) -> None:
    answers = Answers(status)
    server = await asyncio.get_running_loop().create_server(lambda: Stub(answers), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
