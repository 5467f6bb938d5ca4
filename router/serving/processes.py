"""Several router processes on one port: start them, restart them, stop them together.

All children accept from one listening socket, which the parent opens and never reads. Connections that wait
to be accepted survive a child that dies or drains. When all stop, the parent stops new connections, since a
child would do so for the others too. SO_REUSEPORT does not fit: the kernel would give each child a queue of
its own and reset the connections in it when the child closes.

uvicorn.supervisors.Multiprocess does not fit: its children survive a parent that is killed, it restarts a
crashing child without a delay, kills one that is too busy to answer its ping, and ignores a second SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Sequence

from prometheus_client.multiprocess import mark_process_dead

from triptych.router.observe.metrics import SHARED_FOLDER
from triptych.router.serving.listening import take_no_more

log = logging.getLogger(__name__)

BRIEF_SECONDS = 10.0
DELAYS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
START_TRIES = 6


class Processes:
    """Runs `count` children on `sockets` until a signal.

    As in a single process, new connections are accepted for `notice_seconds` after it.

    A child that ends within `brief_seconds` counts as a failed start. `delays` are the seconds before a
    restart, by the number of failed starts in a row; the last one repeats. After `start_tries` in a row all
    processes end, unless a child has ever run: a wrong configuration must not restart forever.
    """

    def __init__(
        self,
        count: int,
        sockets: Sequence[socket.socket],
        notice_seconds: float = 0.0,
        command: Sequence[str] = (sys.executable, "-m", "triptych.router"),
        brief_seconds: float = BRIEF_SECONDS,
        delays: Sequence[float] = DELAYS,
        start_tries: int = START_TRIES,
    ) -> None:
        self._count = count
        self._sockets = sockets
        self._notice_seconds = notice_seconds
        self._command = command
        self._brief_seconds = brief_seconds
        self._delays = delays
        self._start_tries = start_tries
        self._children: set[Process] = set()
        self._stopping = asyncio.Event()
        self._lived = False

    async def run(self) -> int:
        """Run until all children have ended. Returns the exit status: 0, or 78 for a wrong setting."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup ignores SIGHUP.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop)
        shared = None
        with contextlib.ExitStack() as stack:
            try:
                shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="triptych-router-"))
            except OSError as error:
                log.error("no temporary folder (%s): the processes share no metrics and no limits", error)
            codes = await asyncio.gather(*(self._keep(shared) for _ in range(self._count)))
        return max(codes)

    def _stop(self) -> None:
        """Send SIGTERM to the children. A second one ends them at once."""
        if self._stopping.is_set() or not self._notice_seconds:
            self._take_no_more()
        else:
            asyncio.get_running_loop().call_later(self._notice_seconds, self._take_no_more)
        self._stopping.set()
        for child in self._children:
            # It may have ended.
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    def _take_no_more(self) -> None:
        # The children still accept for a moment, so they accept all connections that wait now.
        take_no_more(self._sockets)
        # An open socket here would keep connections waiting after the children have ended.
        for listener in self._sockets:
            listener.close()

    async def _keep(self, shared: str | None) -> int:
        """Keep one child running. Returns its exit status when it is not restarted."""
        failed = 0
        while not self._stopping.is_set():
            failed += 1
            try:
                child = await self._start(shared)
            # Python 3.11 starts a thread for each child; RuntimeError: the thread cannot start.
            except (OSError, RuntimeError) as error:
                code, what = 1, f"a router process cannot be started ({error})"
            else:
                try:
                    async with asyncio.timeout(self._brief_seconds):
                        code = await child.wait()
                except TimeoutError:
                    self._lived, failed = True, 0
                    code = await child.wait()
                self._children.discard(child)
                folder = os.environ.get(SHARED_FOLDER, shared)
                if folder is not None:
                    mark_process_dead(child.pid, folder)  # type: ignore[no-untyped-call]
                what = f"router process {child.pid} ended with code {code}"
                if self._stopping.is_set():
                    # SIGTERM: it was still starting and had no handler.
                    return 0 if code in (0, -signal.SIGTERM) else 1
            if code == os.EX_CONFIG or (failed >= self._start_tries and not self._lived):
                log.error("%s and cannot be kept running", what)
                self._stop()
                return os.EX_CONFIG if code == os.EX_CONFIG else 1
            delay = self._delays[min(failed, len(self._delays) - 1)]
            log.error("%s; another starts in %g s", what, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        return 0

    async def _start(self, shared: str | None) -> Process:
        descriptors = [listener.fileno() for listener in self._sockets]
        files = {SHARED_FOLDER: shared, "ROUTER_LIMITS_FILE": f"{shared}/limits"} if shared else {}
        child = await asyncio.create_subprocess_exec(
            *self._command,
            *map(str, [os.getpid(), *descriptors]),
            # The operator's own settings override these.
            env={**files, **os.environ},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=descriptors,
            # Ctrl-C would reach it twice, from the terminal and from the parent.
            process_group=0,
        )
        self._children.add(child)
        if self._stopping.is_set():
            child.terminate()
        return child
