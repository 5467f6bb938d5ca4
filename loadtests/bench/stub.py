"""A worker that answers at once, to measure the router alone.

    python -m loadtests.bench.stub STATUS PORT

With status 200 every item gets the same unit vector, from frames made in advance. With another status every
batch gets that status, while the worker still says it is ready.
"""

import sys

import msgspec
import numpy as np
import uvloop
from aiohttp import web

from triptych.workers.shared import contract

MOST_ITEMS, TOKENS, DIMENSIONS = 1024, 22, 2048
INFO = contract.Info(
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


def app(status: int) -> web.Application:
    """The worker. It answers batches with `status`."""
    data = np.full(DIMENSIONS, DIMENSIONS**-0.5, "<f4").tobytes()
    vectors = (contract.Vector(index, TOKENS, (DIMENSIONS,), data) for index in range(MOST_ITEMS))
    frames = list(map(contract.encode_frame, vectors))
    headers = {contract.SPACE_HEADER: contract.space_header(INFO.task, INFO.space)}
    made, routes = web.Application(), web.RouteTableDef()

    @routes.post(contract.ENCODE_PATH)
    async def encode(request: web.Request) -> web.Response:
        count = len(msgspec.msgpack.decode(await request.read())["items"])
        return web.Response(status=status, body=b"".join(frames[:count]), headers=headers)

    @routes.get(contract.INFO_PATH)
    async def info(request: web.Request) -> web.Response:
        return web.Response(body=contract.encode_info(INFO))

    @routes.get(contract.READY_PATH)
    async def ready(request: web.Request) -> web.Response:
        return web.Response()

    made.add_routes(routes)
    return made


if __name__ == "__main__":
    status, port = map(int, sys.argv[1:])
    web.run_app(app(status), host="127.0.0.1", port=port, access_log=None, loop=uvloop.new_event_loop())
