"""One serving process: how uvicorn is set up for it, and how it stops without cutting anybody off."""

import asyncio
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn

from router.api.app import App
from router.serving.listening import copy_of, take_no_more
from router.serving.protocol import Protocol
from router.settings import RouterSettings
from workers.shared import logs

# Connections that may wait to be accepted; the kernel's own limit (net.core.somaxconn) stands before it. One
# that finds no place tries again after a second, and then after two more, which is worse than to wait.
BACKLOG = 65_535
# Connections that are taken in a turn of the event loop. libuv takes one from each listening socket (from
# 1.45 on), and turns are long when there is much to do. So there are copies of the socket.
ACCEPTS = 16
# After the last connection was let in: time for what is under way to arrive, and for clients that are in the
# middle of a series of requests to be told, with the reply to one of them, to go on elsewhere.
LAST_SECONDS = 0.25


class Server(uvicorn.Server):
    """uvicorn, with a drain in three steps: notice, no new connections, what is in flight.

    From the first SIGTERM, SIGINT or SIGHUP on the application says that it is draining, and takes work as
    before for the notice that was asked for. Then no connection is taken, those that are idle are closed, and
    what is in flight has the time to drain. A second signal ends it at once.

    Of several processes one that stops leaves the port to the others, and to their parent when all stop.
    """

    def __init__(self, settings: RouterSettings) -> None:
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

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on `sockets` until told to stop."""
        # Under nohup a hang-up is meant to be ignored.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.handle_exit)
        super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal once more when all is done, for an exit code of its own.
        if self._notice_ends is None:
            self._app.draining = True
            self._notice_ends = time.monotonic() + self._notice_seconds
        else:
            self.should_exit = self.force_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        copies = [copy_of(listener) for listener in sockets or () for _ in range(ACCEPTS - 1)]
        await super().serve([*sockets, *copies] if sockets else sockets)

    async def on_tick(self, counter: int) -> bool:
        if self._notice_ends is not None and time.monotonic() >= self._notice_ends:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets and not self.force_exit:
            if not self._shares_port:
                take_no_more(sockets)
            await asyncio.sleep(LAST_SECONDS)
        await super().shutdown(sockets)


def set_up_logging(settings: RouterSettings) -> None:
    """Write log lines to standard error, with the process where there are several."""
    logs.configure(settings.log_format, settings.log_level, processes=settings.processes > 1)
    # One line for each call to a worker is more than anybody reads.
    logging.getLogger("httpx").setLevel(logging.WARNING)
