"""A web server on loopback that serves media, with a handler from the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.fakes.hang_guard import hang_guard

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """A running server. `left` is set when a client disconnects before the reply."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.left = asyncio.Event()
        self.arrived = asyncio.Condition()
        self.handler: Handler | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record and answer a request."""
        self.requests.append(request)
        async with self.arrived:
            self.arrived.notify_all()
        assert self.handler is not None
        try:
            return await self.handler(request)
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def until_requests(self, count: int) -> None:
        """Wait until `count` requests have arrived."""
        async with self.arrived, hang_guard():
            await self.arrived.wait_for(lambda: len(self.requests) >= count)


@asynccontextmanager
async def site(handler: Handler, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Site]:
    """A server on a free port of `host` that answers every path with `handler`."""
    running = Site()
    running.handler = handler
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", running.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, 0, **options).start()
    running.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield running
    finally:
        await runner.cleanup()


def says(body: bytes = b"media", status: int = 200, **headers: str) -> Handler:
    """A handler with a fixed reply; underscores in header names become hyphens."""

    async def handler(_: web.Request) -> web.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers=sent)

    return handler


async def hangs(_: web.Request) -> web.StreamResponse:
    """A handler that never answers."""
    await asyncio.Event().wait()
    raise AssertionError
