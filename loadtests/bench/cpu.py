"""CPU time of processes and of the whole machine."""

import contextlib
from collections.abc import Mapping

import psutil

GENERATOR, OTHERS = "load generator", "other programs"


def cpu_seconds(groups: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far by group (given as a process id), of this process, and of all other programs.

    Time that the hypervisor took counts as that of other programs.
    """
    seconds = {name: tree_seconds(pid) for name, pid in groups.items()}
    seconds[GENERATOR] = _all(psutil.Process())
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return seconds | {OTHERS: busy - sum(seconds.values())}


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process, its descendants, and their ended children; 0 for a process that is gone."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += _all(process)
    return total


def _all(process: psutil.Process) -> float:
    """User and system time of a process and of its children that have ended."""
    return float(sum(process.cpu_times()[:4]))
