"""CPU time of process trees, as the kernel accounts for it in /proc."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """CPU seconds: of each group, of the whole machine (idle time included), of processes in no group, and
    of those that a hypervisor gave to others."""

    groups: dict[str, float]
    machine: float
    elsewhere: float
    stolen: float


class Machine(NamedTuple):
    """Seconds of all processors since the machine began: at work, at work or not, and given to others."""

    busy: float
    all: float
    stolen: float


class Meter:
    """What groups of process trees take from now on, beside this process, which is the load generator."""

    GENERATOR = "load generator"

    def __init__(self, groups: Mapping[str, Sequence[int]], proc: Path = PROC) -> None:
        self._groups, self._proc = groups, proc
        self._before = self._now()

    def read(self) -> Spent:
        """Since this was made."""
        before, now = self._before, self._now()
        groups = {name: now.groups[name] - seconds for name, seconds in before.groups.items()}
        # Two readings are not one moment, so a difference of some ticks means nothing.
        elsewhere = max(0.0, now.elsewhere - before.elsewhere - sum(groups.values()))
        return Spent(groups, now.machine - before.machine, elsewhere, now.stolen - before.stolen)

    def _now(self) -> Spent:
        groups = {
            name: sum(tree_seconds(pid, self._proc) for pid in pids) for name, pids in self._groups.items()
        }
        groups[self.GENERATOR] = own_seconds(os.getpid(), self._proc)
        machine = machine_seconds(self._proc)
        return Spent(groups, machine.all, machine.busy, machine.stolen)


def machine_seconds(proc: Path = PROC) -> Machine:
    """Of the whole machine, with whatever. Raises `OSError` where the kernel does not say."""
    line = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) / _TICKS for field in line)
    busy = user + nice + system + irq + softirq
    return Machine(busy, busy + idle + iowait + stolen, stolen)


def own_seconds(pid: int, proc: Path = PROC) -> float:
    """CPU seconds of one process, all its threads, without its children."""
    return sum(_times(_stat(pid, proc))[:2]) / _TICKS


def tree_seconds(root: int, proc: Path = PROC) -> float:
    """CPU seconds of a process and all below it, those that have ended and been waited for included.

    A process that ends between two calls loses nothing: its time passes to the parent that waited for it.
    """
    return sum(sum(_times(stat)) for stat in _tree(root, proc)) / _TICKS


def tree(root: int, proc: Path = PROC) -> list[int]:
    """The process ids of `root` and all below it."""
    return [int(stat[0]) for stat in _tree(root, proc)]


def _tree(root: int, proc: Path) -> list[list[str]]:
    stats = {}
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                stat = _stat(int(entry.name), proc)
            except (FileNotFoundError, ProcessLookupError):
                continue
            stats[int(entry.name)] = stat
            children.setdefault(int(stat[2]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            found.append(stats[pid])
            waiting += children.get(pid, [])
    return found


def _stat(pid: int, proc: Path) -> list[str]:
    """The process id, then the fields of proc(5)'s `stat` from the state on."""
    text = (proc / str(pid) / "stat").read_text()
    # The name is in parentheses and may hold anything, parentheses too.
    return [str(pid), *text[text.rindex(")") + 1 :].split()]


def _times(stat: list[str]) -> list[int]:
    """utime, stime, cutime and cstime in clock ticks."""
    return [int(field) for field in stat[12:16]]
