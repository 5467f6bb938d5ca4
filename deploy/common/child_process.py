"""A child process: starts it, reads its output, and ends it with its whole process group."""

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from triptych.workers.shared.parent_death import die_with_parent, guard_group

TAIL_LINES = 30
# Longer lines are split, so that a child cannot fill our memory with one line.
MAX_LINE_BYTES = 1 << 16
PROBE_SECONDS = 0.25


class ChildProcess:
    """A running process in its own session. Its group ends when this process ends, even by SIGKILL.

    `exited` resolves to its exit code (negative: the signal that ended it). By then the rest of its process
    group got SIGKILL: a worker that dies may leave an engine behind that holds the GPU.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
        *,
        death_signal: bool = True,
    ) -> None:
        """Start it. `on_line` gets each line of its output; without it, the output goes where ours goes.

        `death_signal` ends it if this process ends before the guard runs. It runs code between fork and exec,
        so set it to False in a process with several threads.
        """
        self._loop = asyncio.get_running_loop()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._popen = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else None,
            stderr=subprocess.STDOUT if on_line else None,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()) if death_signal else None,
        )
        self.pid = self._popen.pid
        with ExitStack() as undo:
            # A process that is not watched would keep its port.
            undo.callback(self._popen.wait)
            undo.callback(os.killpg, self.pid, signal.SIGKILL)
            self._guard = undo.enter_context(guard_group(self.pid))
            undo.callback(self._guard.kill)
            self._pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        self._loop.add_reader(self._pidfd, self._reap)
        self._reading = self._loop.create_task(self._read(on_line)) if on_line else None

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.exited.result() if self.exited.done() else None

    async def ready(self, probe: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until `probe` is true or the process ends; returns whether it is ready."""
        while not self.exited.done():
            # Another process may answer on the port of one that is ending.
            if await probe() and not self.exited.done():
                return True
            await asyncio.wait([self.exited], timeout=PROBE_SECONDS)
        return False

    async def until(self, probe: Callable[[], Awaitable[bool]], seconds: float, name: str) -> None:
        """Wait as `ready` does; after an error or `seconds`, end the process. Raises `RuntimeError`."""
        try:
            async with asyncio.timeout(seconds):
                if not await self.ready(probe):
                    raise RuntimeError(f"{name} ended with {self.code} while it started; its log says why")
        except BaseException as error:
            await self.stop(0)
            if isinstance(error, TimeoutError):
                raise RuntimeError(f"{name} is not ready after {seconds:g} s") from None
            raise

    def kill(self) -> None:
        """Send SIGKILL to the process group."""
        if not self.exited.done():
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM, after `seconds` SIGKILL, and wait for the end and the last lines."""
        if not self.exited.done():
            # Not to its children.
            os.kill(self.pid, signal.SIGTERM)
        await asyncio.wait([self.exited], timeout=seconds)
        self.kill()
        await self.drained()

    async def drained(self) -> None:
        """Wait for the end, then, for a second at most, until `on_line` got the last lines."""
        # The caller may be cancelled, the future must not be.
        await asyncio.shield(self.exited)
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1)

    def _reap(self) -> None:
        # The process is a zombie until `wait`, so no other process can have its group's number.
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.killpg(self.pid, signal.SIGKILL)
        with self._guard:
            self._guard.kill()
        self.exited.set_result(self._popen.wait())

    async def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._popen.stdout is not None
        stream = asyncio.StreamReader()
        transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._popen.stdout
        )
        rest, ended = b"", False
        while not ended:
            data = await stream.read(MAX_LINE_BYTES)
            ended = not data
            *lines, rest = (rest + data).split(b"\n")
            if rest and (ended or len(rest) >= MAX_LINE_BYTES):
                lines, rest = [*lines, rest], b""
            for line in lines:
                # A progress bar overwrites itself with carriage returns. Its last state is enough.
                text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
                self.tail.append(text)
                on_line(text)
        transport.close()
