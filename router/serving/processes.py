"""Several router processes on one port: started, kept running, and ended together.

All serve the same listening socket, which the parent makes and keeps open but never reads from. What
waits in it to be accepted belongs to no child, so it outlives any: a child that dies or drains loses no
connection that it had not taken. It is the parent that keeps new ones out, when all stop: a child would do
so for the others too. With a socket for each child (SO_REUSEPORT) the kernel would spread connections by
chance, to a child that is gone too, and reset what waited for one that closes its own.

Not `uvicorn.supervisors.Multiprocess`: its children outlive a parent that is killed, it restarts a child that
dies at once without a pause, ends one that is too busy to answer its ping, and ignores a second SIGTERM.
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

from router.serving.listening import take_no_more

log = logging.getLogger(__name__)

# A child that lived shorter than this did not really run.
BRIEF_SECONDS = 10.0
# Seconds before a child is started again, by how many starts in a row failed; the last one repeats.
DELAYS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# So many failed starts in a row end all processes, unless one of them has ever lived: an error at the start
# has to be seen.
START_TRIES = 6


class Processes:
    """`count` children on `sockets`, until a signal says to stop.

    From then on they take connections for `notice_seconds`, as a single process does.
    """

    def __init__(
        self,
        count: int,
        sockets: Sequence[socket.socket],
        notice_seconds: float = 0.0,
        command: Sequence[str] = (sys.executable, "-m", "router.serving.child"),
    ) -> None:
        self._count = count
        self._sockets = sockets
        self._notice_seconds = notice_seconds
        self._command = command
        self._children: set[Process] = set()
        self._stopping = asyncio.Event()
        self._lived = False

    async def run(self) -> int:
        """The exit status: 0 when all ended as they were told to, 78 when a setting has to change first."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under nohup a hang-up is meant to be ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop)
        with tempfile.TemporaryDirectory(prefix="triptych-router-") as shared:
            codes = await asyncio.gather(*(self._keep(shared) for _ in range(self._count)))
        return max(codes)

    def _stop(self) -> None:
        """Pass the signal on; to children that had one before it says to end at once."""
        if self._stopping.is_set() or not self._notice_seconds:
            self._take_no_more()
        else:
            asyncio.get_running_loop().call_later(self._notice_seconds, self._take_no_more)
        self._stopping.set()
        for child in self._children:
            # One may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    def _take_no_more(self) -> None:
        # The children accept for a moment longer, so all that was let in before this.
        take_no_more(self._sockets)
        # While it is open here the port would take connections that nobody accepts any more.
        for listener in self._sockets:
            listener.close()

    async def _keep(self, shared: str) -> int:
        """Keep one child running; returns the exit status when it has ended for good."""
        failed = 0
        while not self._stopping.is_set():
            failed += 1
            try:
                child = await self._start(shared)
            # Python 3.11 watches each child with a thread, and a thread that cannot start is a RuntimeError.
            except (OSError, RuntimeError) as error:
                code, what = 1, f"a router process cannot be started ({error})"
            else:
                try:
                    async with asyncio.timeout(BRIEF_SECONDS):
                        code = await child.wait()
                except TimeoutError:
                    self._lived, failed = True, 0
                    code = await child.wait()
                self._children.discard(child)
                what = f"router process {child.pid} ended with code {code}"
                if self._stopping.is_set():
                    # One that was only just starting had no handler yet.
                    return 0 if code in (0, -signal.SIGTERM) else 1
            if code == os.EX_CONFIG or (failed >= START_TRIES and not self._lived):
                log.error("%s and cannot be kept running", what)
                self._stop()
                return os.EX_CONFIG if code == os.EX_CONFIG else 1
            delay = DELAYS[min(failed, len(DELAYS) - 1)]
            log.error("%s; another starts in %g s", what, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        return 0

    async def _start(self, shared: str) -> Process:
        descriptors = [listener.fileno() for listener in self._sockets]
        child = await asyncio.create_subprocess_exec(
            *self._command,
            *map(str, [os.getpid(), *descriptors]),
            env={**_shared(shared), **os.environ},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=descriptors,
            # Or Ctrl-C would reach it twice, from the terminal and from us.
            process_group=0,
        )
        self._children.add(child)
        if self._stopping.is_set():
            child.terminate()
        return child


def _shared(folder: str) -> dict[str, str]:
    """What tells the children where they count together; the operator's own places come first."""
    return {"PROMETHEUS_MULTIPROC_DIR": folder, "ROUTER_LIMITS_FILE": f"{folder}/limits"}
