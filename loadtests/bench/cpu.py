"""CPU time of processes and of the whole machine."""

import contextlib
from collections.abc import Mapping

import psutil

GENERATOR = "load generator"
MACHINE, IDLE, STOLEN = "whole machine", "idle", "stolen"
"""Times of all processors: in all, idle, and taken by the hypervisor."""


def cpu_seconds(groups: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far by group (given as a process id), of this process, and of the whole machine."""
    seconds = {name: tree_seconds(pid) for name, pid in groups.items()}
    seconds[GENERATOR] = _all(psutil.Process())
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return seconds | {MACHINE: busy + idle + times.steal, IDLE: idle, STOLEN: times.steal}


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
