"""CPU time of process trees and of the whole machine."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


class Machine(NamedTuple):
    """CPU seconds of all processors since boot: busy, in all, and taken by the hypervisor."""

    busy: float
    all: float
    stolen: float


class Spent(NamedTuple):
    """CPU seconds: of each group, of the whole machine (idle time included), of processes in no group, and
    taken by the hypervisor."""

    groups: dict[str, float]
    machine: float
    elsewhere: float
    stolen: float


class Meter:
    """Measures groups of process trees, and this process with its ended children as the load generator."""

    GENERATOR = "load generator"

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self._before = self._now()

    def read(self) -> Spent:
        """The CPU time since this was made."""
        (before, before_all), (now, now_all) = self._before, self._now()
        groups = {name: now[name] - before[name] for name in now}
        # The readings are not simultaneous, so the difference may be slightly negative.
        elsewhere = max(0.0, now_all.busy - before_all.busy - sum(groups.values()))
        return Spent(groups, now_all.all - before_all.all, elsewhere, now_all.stolen - before_all.stolen)

    def _now(self) -> tuple[dict[str, float], Machine]:
        groups = {name: sum(map(tree_seconds, pids)) for name, pids in self._groups.items()}
        groups[self.GENERATOR] = sum(psutil.Process().cpu_times()[:4])
        return groups, machine_seconds()


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process, its descendants, and their ended children; 0 for a process that is gone."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                # user, system, and the same of children that have ended.
                total += sum(process.cpu_times()[:4])
    return total


def machine_seconds(proc: Path = PROC) -> Machine:
    """CPU seconds of the machine. Raises `OSError` without /proc."""
    line = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) / _TICKS for field in line)
    busy = user + nice + system + irq + softirq
    return Machine(busy, busy + idle + iowait + stolen, stolen)
