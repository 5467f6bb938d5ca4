"""Kills the process groups of a process that is gone.

A child's parent-death signal does not reach the child's own children, such as an engine that is still
importing. The guard is a small process that reads from a pipe which process groups run (`+123`, `-123`). The
pipe ends with the process that made the guard; then the guard kills the groups that are left.
"""

import contextlib
import os
import signal
import subprocess
import sys


class Guard:
    """The side of the process that is guarded."""

    def __init__(self) -> None:
        # Isolated and without site-packages, so that it starts in a few milliseconds.
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        assert self._popen.stdin is not None
        self._pipe = self._popen.stdin

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, which kills every group that it still knows."""
        self._pipe.close()
        self._popen.wait()

    def _tell(self, line: str) -> None:
        # The deployment also works without its guard.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe.fileno(), line.encode())


def watch() -> None:
    """The guard's side: read until the pipe ends, then kill."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            groups.add(int(line))
        else:
            groups.discard(-int(line))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    watch()
