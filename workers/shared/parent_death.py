"""Ends a process when its parent ends, by Linux's parent-death signal."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

# Loaded here, since `die_with_parent` may run between fork and exec, where little is safe.
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, even if the parent gets SIGKILL.

    `parent` is the expected parent's process ID. If that process has ended already, this one exits with 1.
    """
    if sys.platform != "linux":
        return
    if parent is None:
        parent = os.getppid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
