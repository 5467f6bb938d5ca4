"""Looking at process trees, and waiting for processes to end."""

import asyncio
from collections.abc import Sequence
from statistics import median

import psutil

from tests.fakes.hang_guard import GUARD_SECONDS


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below `pid`."""
    return psutil.Process(pid).children(recursive=True)


def command(process: psutil.Process) -> str:
    """Its title where it set one, else its command line; "" once it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def wait_gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether every process ends."""
    return not psutil.wait_procs(processes, GUARD_SECONDS)[1]


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
