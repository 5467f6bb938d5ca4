"""A worker that answers at once, to measure the router alone.

    python -m loadtests.bench.stub PORT STATUS

With status 200 every item gets the same unit vector, from frames made in advance. With another status every
batch gets that status, while the worker still says it is ready.
"""

import sys

import msgspec
import numpy as np
import uvloop
from aiohttp import web

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
INFO = Info(
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


class Batch(msgspec.Struct):
    """The part of a request that the stub reads."""

    items: list[msgspec.Raw]


def app(status: int) -> web.Application:
    """The worker. It answers batches with `status`."""
    vector = np.full(DIMENSIONS, DIMENSIONS**-0.5, "<f4").tobytes()
    frames = [encode_frame(Vector(index, TOKENS, (DIMENSIONS,), vector)) for index in range(MOST_ITEMS)]
    headers = {SPACE_HEADER: space_header(INFO.task, INFO.space)}
    batch = msgspec.msgpack.Decoder(Batch)

    async def encode(request: web.Request) -> web.Response:
        count = len(batch.decode(await request.read()).items)
        return web.Response(status=status, body=b"".join(frames[:count]), headers=headers)

    async def info(request: web.Request) -> web.Response:
        return web.Response(body=encode_info(INFO))

    async def ready(request: web.Request) -> web.Response:
        return web.Response()

    made = web.Application(client_max_size=1 << 30)
    made.add_routes([web.post(ENCODE_PATH, encode), web.get(INFO_PATH, info), web.get(READY_PATH, ready)])
    return made


if __name__ == "__main__":
    port, status = map(int, sys.argv[1:])
    web.run_app(app(status), host="127.0.0.1", port=port, access_log=None, loop=uvloop.new_event_loop())
