"""A router in a thread, and checks that hold for each of its replies."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import uvloop

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.errors import all_errors
from triptych.router.serving.turns import Turns
from triptych.workers.shared import contract

MAX_ITEMS = 32
DIMENSIONS = 64


class Target:
    """A running router and its address. Media fetching is off, so nothing leaves the machine."""

    def __init__(self, router: RunningRouter, loop: asyncio.AbstractEventLoop) -> None:
        self.url = str(router.client.base_url)
        self._router = router
        self.loop = loop

    def take_turns(self, seconds: float) -> None:
        """From now on, read new connections for so long in a turn of the event loop."""
        self._router.app.connections.turns = Turns(seconds)

    def until_idle(self) -> None:
        """Wait until nothing waits, is in flight or holds memory; fails when something was left behind."""
        asyncio.run_coroutine_threadsafe(self._until_idle(), self.loop).result(GUARD_SECONDS)

    async def _until_idle(self) -> None:
        await self._router.until_idle()
        await eventually(lambda: self._router.app.budget.used == 0)


@contextmanager
def running_target() -> Iterator[Target]:
    """A router with a worker per pool, in a thread with its own event loop."""
    started: Future[Target] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        workers = [FakeWorker(pool, DIMENSIONS) for pool in contract.POOLS]
        async with (
            fake_workers(*workers),
            running_router(*workers, media_fetch=False, max_items=MAX_ITEMS) as router,
        ):
            started.set_result(Target(router, asyncio.get_running_loop()))
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = Thread(target=run)
    thread.start()
    try:
        target = started.result(GUARD_SECONDS)
        yield target
        target.until_idle()
        target.loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join(GUARD_SECONDS)


def check_error(reply: httpx.Response) -> None:
    """Fail unless `reply` is a 4xx error with the documented fields."""
    assert 400 <= reply.status_code < 500, reply.text
    error: dict[str, Any] = reply.json()
    assert (reply.status_code, error["code"]) in [(kind.status, kind.code) for kind in all_errors()]
    assert isinstance(error["detail"], str)
    assert error["detail"]
    assert error["request_id"] == reply.headers["x-request-id"]
    fields = {"detail", "code", "request_id", "error"}
    if reply.status_code != 422:
        assert set(error) == fields
        return
    assert set(error) == fields | {"errors"}
    assert error["errors"]
    for fault in error["errors"]:
        assert set(fault) == {"field", "message", "type", "input"}
        assert re.match(r"(body|header)( -> |$)", fault["field"]), fault
        # The tags of schema branches are not fields.
        assert "|" not in fault["field"] or "|" in reply.request.content.decode(errors="replace")
        assert fault["message"]
        assert fault["type"]
        assert fault["input"] is None or isinstance(fault["input"], str | int | float | bool)
        assert len(str(fault["input"])) < 200
    assert len(reply.content) < 1000 + 1000 * len(error["errors"])
