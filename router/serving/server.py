"""A server process: uvicorn's configuration, and a graceful shutdown that drops no request."""

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from triptych.router.api.app import App
from triptych.router.observe.shared_files import reserve_shared_files
from triptych.router.serving.listening import copy_of, take_no_more
from triptych.router.serving.protocol import Protocol
from triptych.router.settings import RouterSettings
from triptych.workers.shared import logs
from triptych.workers.shared.collector import freeze

# Connections that may wait to be accepted; net.core.somaxconn also limits them. A connection over the limit
# retries after one second and then after two more, so waiting is better.
BACKLOG = 65_535
# Connections accepted per iteration of the event loop. libuv (since 1.45) accepts one from each listening
# socket per iteration, and iterations are long under load. So the socket is duplicated.
ACCEPTS = 16
# Time after the last new connection: requests that are on their way arrive, and clients with open connections
# learn from a reply (`Connection: close`) to reconnect elsewhere.
LAST_SECONDS = 0.25
TICK_SECONDS = 0.02


class Server(uvicorn.Server):
    """uvicorn with a graceful shutdown in three steps: notice, no new connections, drain.

    After the first SIGTERM, SIGINT or SIGHUP, `/health` and `/ready` return 503, and requests are still
    served for ROUTER_DRAIN_NOTICE_SECONDS. Then new connections are stopped and idle ones are closed, and
    requests in flight have ROUTER_DRAIN_SECONDS. A second signal ends the process at once.

    One of several processes does not stop new connections, since the others serve the same socket. Their
    parent does, when all stop.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        raise_descriptor_limit()
        reserve_shared_files()
        self._app = App(settings)
        super().__init__(
            uvicorn.Config(
                self._app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Protocol,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.drain_seconds,
            )
        )
        self._shares_port = settings.processes > 1
        self._notice_seconds = settings.drain_notice_seconds
        self._notice_ends: float | None = None
        self._clock = clock

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # nohup ignores SIGHUP.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.handle_exit)
        freeze()
        super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Without super(): uvicorn would raise the signal again after the shutdown, which changes the exit
        # code.
        if self._notice_ends is None:
            self._app.draining = True
            self._notice_ends = self._clock() + self._notice_seconds
        else:
            self.should_exit = self.force_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        copies = [copy_of(listener) for listener in sockets or () for _ in range(ACCEPTS - 1)]
        await super().serve([*sockets, *copies] if sockets else sockets)

    async def on_tick(self, counter: int) -> bool:
        if self._notice_ends is not None and self._clock() >= self._notice_ends:
            self.should_exit = True
        return await super().on_tick(counter)

    async def _all_read(self) -> None:
        """Wait until no request waits to be read; uvicorn would close its connection as idle."""
        turns = self._app.connections.turns
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while turns.waiting and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets and not self.force_exit:
            if not self._shares_port:
                take_no_more(sockets)
            await asyncio.sleep(LAST_SECONDS)
            await self._all_read()
        await super().shutdown(sockets)


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_up_logging(settings: RouterSettings) -> None:
    """Log to standard error; with several processes, each line has the process id."""
    logs.configure(settings.log_format, settings.log_level, processes=settings.processes > 1)
    # It logs each call to a worker.
    logging.getLogger("httpx").setLevel(logging.WARNING)
