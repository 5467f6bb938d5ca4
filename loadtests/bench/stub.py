"""A worker that answers at once, so that what is measured is the router.

    python -m loadtests.bench.stub --port 8101 [--dimensions 2048] [--status 200]

Its frames are made up front: every item of every batch gets the same unit vector. With another status it
answers every batch with that, and still says that it is ready.
"""

import argparse
import asyncio
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

MOST_ITEMS = 1024
TOKENS = 22


class Batch(msgspec.Struct):
    """A request as far as the stub reads it: how many items there are."""

    items: list[msgspec.Raw]


class Answers:
    """What is sent, ready to be put together."""

    def __init__(self, dimensions: int, status: int) -> None:
        info = Info(
            task="retrieval",
            model="stub",
            space="0" * 16,
            instance="stub",
            revision=None,
            dimensions=dimensions,
            multivector_dimensions=None,
            max_tokens=32_768,
            batch_tokens=8192,
            versions={},
        )
        values = np.random.default_rng(0).standard_normal(dimensions).astype("<f4")
        data = (values / np.linalg.norm(values)).tobytes()
        self._frames = [
            encode_frame(Vector(index, TOKENS, (dimensions,), data)) for index in range(MOST_ITEMS)
        ]
        self._count = msgspec.msgpack.Decoder(Batch).decode
        self._status = status
        self._beginning = (
            f"HTTP/1.1 200 OK\r\n{SPACE_HEADER}: {space_header(info.task, info.space)}\r\ncontent-length: "
        )
        self._info = reply(200, encode_info(info))
        self._failure = reply(status, b"{}")

    def to(self, path: bytes, body: bytes) -> bytes:
        """The whole reply."""
        if path == ENCODE_PATH.encode():
            if self._status != 200:
                return self._failure
            frames = b"".join(self._frames[: len(self._count(body).items)])
            return f"{self._beginning}{len(frames)}\r\n\r\n".encode() + frames
        if path == INFO_PATH.encode():
            return self._info
        return reply(200 if path == READY_PATH.encode() else 404, b"{}")


def reply(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} -\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


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


async def serve(port: int, answers: Answers) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Stub(answers), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker that answers at once.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--status", type=int, default=200)
    options = parser.parse_args()
    uvloop.run(serve(options.port, Answers(options.dimensions, options.status)))


if __name__ == "__main__":
    main()
