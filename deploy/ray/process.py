"""A child process of a replica, ended with it however it ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from deploy.local.guard import Guard


class ChildProcess:
    """A running process in a session of its own, its output where ours goes.

    A guard kills its whole process group when we are gone, by SIGKILL or with our node's raylet. The death
    signal that `deploy.local.child` sets besides would need code between fork and exec, which is not safe
    in a process with as many threads as a Ray actor has.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._guard = Guard()
        self._popen = subprocess.Popen(argv, env=dict(env), stdin=subprocess.DEVNULL, start_new_session=True)
        self.pid = self._popen.pid
        self._guard.add(self.pid)
        self._waiting = asyncio.get_running_loop().run_in_executor(None, self._popen.wait)

    @property
    def ended(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        return self._popen.poll()

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL for whatever is left of its group after `seconds` or its own end."""
        if self.ended is None:
            self._popen.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._waiting)
        self.kill()
        await self._waiting
        await asyncio.to_thread(self._guard.close)

    def kill(self) -> None:
        """SIGKILL to its whole group: a worker that died may have left an engine that holds the GPU."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
