"""Ends the process groups of a supervisor that is gone: for what its children's death signal does not reach.

The kernel kills a child whose supervisor was killed, but not the child's own children, such as an engine that
is still importing and has set no death signal yet. The guard is a small process of its own. It holds
the reading end of a pipe, on which it is told which process groups live (`+123`, `-123`); when the pipe ends,
so has the supervisor, and the groups that are left are killed.
"""

import contextlib
import os
import signal
import subprocess
import sys


class Guard:
    """The supervisor's side."""

    def __init__(self) -> None:
        # Isolated and without site-packages, so that it starts in a few milliseconds.
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, and with it every group that is still known to it."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait()

    def _tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        # Should somebody kill the guard: the deployment works without it.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._popen.stdin.fileno(), line.encode())


def watch() -> None:
    """The guard's side: until the pipe ends, then kill."""
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
