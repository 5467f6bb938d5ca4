"""Ends a process, or a whole process group, when its parent ends, even by SIGKILL."""

import ctypes
import os
import signal
import subprocess
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
    parent = parent or os.getppid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def guard_group(group: int) -> "subprocess.Popen[bytes]":
    """Start a shell that kills the process group `group` when this process ends.

    Kill the shell once the group has ended. Linux's parent-death signal would not reach a child of the child,
    such as an engine that is still importing.
    """
    # The pipe ends with this process.
    return subprocess.Popen(
        ("/bin/sh", "-c", f"read _; kill -s KILL -- -{group}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
