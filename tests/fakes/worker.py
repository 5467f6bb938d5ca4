"""A fake worker without an engine, on a real socket, with modes of misbehaviour.

Its vectors are derived from the input, so a test can tell to which input a vector belongs.
"""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.fakes.frames import SPACE, Mode, frame_of, source, text_of
from tests.fakes.hang_guard import eventually
from triptych.loadtests.server_processes import free_port
from triptych.workers.shared import contract
from triptych.workers.shared.families import V4

# A text that begins with this ends the process, which is restarted.
DEADLY = "!deadly"
STATUSES = {"error": 500, "unavailable": 503, "rejecting": 400}


class FakeWorker:
    """A fake worker. Set `mode` for all batches, or `script` for the next ones, and `info` before probes.

    `token` is required of callers if set. `wait` is the seconds that it tells in mode "overloaded".
    `vectors_of` names the pool whose vectors it returns. `failing_index` fails that item of each batch.
    Further fields of its info can be given.

    Records: `batches` and their `headers`; `left`, batches whose caller disconnected; `active`, current
    batches; `deaths`, processes that a deadly text ended.
    """

    def __init__(
        self,
        task: contract.PoolName = "retrieval",
        dimensions: int = 2048,
        port: int = 0,
        seed: int = 0,
        **info: Any,
    ) -> None:
        made = contract.Info(task, "fake", SPACE, "not started", None, dimensions, 128, 32_768, 8192, {})
        self.info = msgspec.structs.replace(made, **info)
        self.vectors_of: contract.PoolName = task
        self.mode: Mode = "healthy"
        self.script: deque[Mode] = deque()
        self.ready = True
        self.token: str | None = None
        self.gate = asyncio.Event()
        self.delay = 0.05
        self.wait: str | None = None
        self.batches: list[contract.EncodeRequest] = []
        self.headers: list[dict[str, str]] = []
        self.left = 0
        self.active = 0
        self.deaths = 0
        self.failing_index: int | None = None
        self._dying: asyncio.Task[None] | None = None
        self.port = port
        self._random = random.Random(seed)
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def items(self) -> list[contract.Item]:
        """All items of all batches, in order of arrival."""
        return [item for batch in self.batches for item in batch.items]

    async def start(self) -> None:
        """Listen as a new process, on the same port as before."""
        self.info = msgspec.structs.replace(self.info, instance=secrets.token_hex(8))
        app = web.Application(client_max_size=1 << 28, middlewares=[self._guard])
        app.router.add_post(contract.ENCODE_PATH, self._encode)
        app.router.add_get(contract.INFO_PATH, self._info)
        app.router.add_get(contract.READY_PATH, self._ready)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        # Not one of the kernel's ports, which another process could get while this one does not listen.
        self.port = self.port or free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def die(self) -> None:
        """Drop all connections and stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for connection in list(runner.server.connections if runner.server else ()):
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def _die_of_it(self) -> None:
        self.deaths += 1
        await self.die()
        self._dying = None
        await self.start()

    async def until_batches(self, count: int) -> None:
        """Wait until `count` batches have arrived."""
        await eventually(lambda: len(self.batches) >= count)

    async def until_left(self, count: int) -> None:
        """Wait until the callers of `count` batches have disconnected."""
        await eventually(lambda: self.left >= count)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        return await handler(request)

    async def _info(self, _: web.Request) -> web.Response:
        return web.Response(body=contract.encode_info(self.info), content_type="application/json")

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    async def _encode(self, request: web.Request) -> web.StreamResponse:
        batch = contract.decode_request(await request.read())
        mode = self.script.popleft() if self.script else self.mode
        self.batches.append(batch)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.active += 1
        try:
            return await self._answer(request, batch, mode)
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.active -= 1

    async def _answer(
        self, request: web.Request, batch: contract.EncodeRequest, mode: Mode
    ) -> web.StreamResponse:
        assert request.transport is not None
        if any(text_of(item).startswith(DEADLY) for item in batch.items):
            self._dying = self._dying or asyncio.create_task(self._die_of_it())
            await asyncio.Event().wait()
        match mode:
            case "flaky" if self._random.random() < 1 / 3:
                return web.Response(status=500)
            case "error" | "unavailable" | "rejecting":
                return web.Response(status=STATUSES[mode], text="boom")
            case "overloaded" | "draining":
                waits = {contract.WAIT_HEADER: self.wait} if mode == "overloaded" and self.wait else {}
                return web.Response(status=503, headers={contract.STATE_HEADER: mode, **waits})
            case "hanging":
                await asyncio.Event().wait()
            case "held":
                await self.gate.wait()
            case "slow":
                await asyncio.sleep(self.delay)
        if mode == "reset":
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(
            headers={contract.SPACE_HEADER: contract.space_header(self.info.task, self.info.space)}
        )
        await response.prepare(request)
        # In reverse order, because frames may come in any order.
        frames = [self._frame(batch, index, mode) for index in reversed(range(len(batch.items)))]
        match mode:
            case "cut":
                data = b"".join(frames)
                await response.write(data[: len(data) // 2 + 5])
                request.transport.abort()
                return response
            case "hanging in the body":
                await response.write(frames[0])
                await asyncio.Event().wait()
            case "short":
                frames.pop()
            case "garbage":
                frames = [b"\x08\0\0\0 nonsense"]
            case "same index twice":
                frames.append(frames[0])
        for frame in frames:
            await response.write(frame)
        if mode == "endless":
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    def _frame(self, batch: contract.EncodeRequest, index: int, mode: Mode) -> bytes:
        if index == self.failing_index:
            return contract.encode_frame(contract.Failure(index, "media_invalid", "the worker says no"))
        item = batch.items[index]
        if (item.adapter is not None) != (self.info.task == V4.shared_pool):
            failure = contract.Failure(index, "unsupported", f"adapter {item.adapter} in {self.info.task}")
            return contract.encode_frame(failure)
        vectors = source(item.adapter or self.vectors_of, self.info.space)
        return frame_of(vectors, self.info.dimensions, batch, index, mode)


@asynccontextmanager
async def fake_workers(*workers: FakeWorker) -> AsyncIterator[None]:
    """Start `workers`, and stop those that still run at the end."""
    for worker in workers:
        await worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.gate.set()
            await worker.die()
