"""One child process: started, its lines read, its whole process group ended with it."""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

PR_SET_PDEATHSIG = 1
TAIL_LINES = 30
# A line longer than this is cut in pieces, so that a child cannot fill our memory with one.
MAX_LINE_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Guard(Protocol):
    """Is told which process groups live; see `guard.py`."""

    def add(self, group: int) -> None: ...
    def remove(self, group: int) -> None: ...


class Child:
    """A running process in a session of its own, which ends when we do, however we end.

    `exited` resolves to its exit code (negative: the signal that ended it). By then SIGKILL has gone to
    whatever is left of its process group: a worker that dies may leave an engine behind that holds the GPU.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        guard: Guard,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Start it. Without `on_line` it writes where we do, otherwise each of its lines is handed over."""
        self._loop = asyncio.get_running_loop()
        self._guard = guard
        self._on_line = on_line
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._popen = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else None,
            stderr=subprocess.STDOUT if on_line else None,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        self.pid = self._popen.pid
        try:
            guard.add(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            # Without it the process could not be watched, and would keep its port.
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()
            raise
        self._loop.add_reader(self._pidfd, self._reap)
        self._reading = self._loop.create_task(self._read()) if on_line else None

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM); it is left to see to its own children."""
        if not self.exited.done():
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process group now."""
        if not self.exited.done():
            os.killpg(self.pid, signal.SIGKILL)

    async def drained(self) -> None:
        """Wait, for a second at most, until the last lines of a process that has exited were handed over."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1)

    def _reap(self) -> None:
        # The process is a zombie until `wait`, so nobody else can have been given its group's number yet.
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.killpg(self.pid, signal.SIGKILL)
        self._guard.remove(self.pid)
        self.exited.set_result(self._popen.wait())

    async def _read(self) -> None:
        assert self._popen.stdout is not None
        stream = asyncio.StreamReader()
        transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._popen.stdout
        )
        rest = b""
        while data := await stream.read(MAX_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) >= MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._hand_over(line)
        if rest:
            self._hand_over(rest)
        transport.close()

    def _hand_over(self, line: bytes) -> None:
        assert self._on_line is not None
        # A progress bar draws over itself with carriage returns; its last state is the one worth a line.
        text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
        self.tail.append(text)
        self._on_line(text)


def _die_with(parent: int) -> Callable[[], None]:
    """To be called in a new process: have the kernel kill it when `parent` ends, even by SIGKILL.

    Runs between fork and exec, where only little is safe; that holds as long as we have one thread.
    """

    def set_death_signal() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
