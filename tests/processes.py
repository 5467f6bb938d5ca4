"""Looking at process trees, and waiting for processes by event."""

import asyncio
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from tests.fakes.hang_guard import GUARD_SECONDS


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    found, queue = [], [pid]
    while queue:
        below = []
        for children in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            with suppress(OSError):
                below += [int(child) for child in children.read_text().split()]
        found += below
        queue += below
    return found


def name_of(pid: int) -> str:
    """How the process is called: its title where it set one, else its command line; "" once it is gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} {command}"
    except OSError:
        return ""


def pidfds_of(pids: Iterable[int]) -> list[int]:
    """To wait for these; one that has ended already is left out."""
    pidfds = []
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    return pidfds


def wait_gone(pidfds: list[int], seconds: float = GUARD_SECONDS) -> bool:
    """Whether every process has ended within that time."""
    left = set(pidfds)
    poll = select.poll()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left:
        ended = poll.poll(seconds * 1000)
        if not ended:
            return False
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            left.discard(pidfd)
    return True


class Watch:
    """Memory and descriptors of a process, sampled again and again."""

    def __init__(self, pid: int, every_seconds: float) -> None:
        self._process = psutil.Process(pid)
        self._every_seconds = every_seconds
        self.resident: list[int] = []
        self.descriptors: list[int] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.resident.append(self._process.memory_info().rss)
            self.descriptors.append(self._process.num_fds())
            await asyncio.sleep(self._every_seconds)


def thirds(samples: list[int]) -> tuple[float, float]:
    """The medians of the first and the last third."""
    third = max(1, len(samples) // 3)
    return median(samples[:third]), median(samples[-third:])
