"""Hides this process's memory and environment, with its keys and tokens, from others of the same user."""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Let only root attach a debugger or read `mem` and `environ` in `/proc`. Turns core dumps off too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
