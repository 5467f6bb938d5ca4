"""How busy and how late a process of the load tester is."""

import time
from typing import Any

import psutil

from triptych.loadtests.histogram import Counts, bucket, percentile
from triptych.loadtests.results import Process

SHARE = 0.99


class Monitor:
    """Observes this process and its machine, from when it is made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._machine = psutil.cpu_times()
        self._lag: Counts = {}
        self._late: Counts = {}

    def lag(self, seconds: float) -> None:
        """The event loop ran something so much later than it was due."""
        _count(self._lag, seconds)

    def late(self, seconds: float) -> None:
        """A request was sent so much later than it was due."""
        _count(self._late, seconds)

    def read(self, name: str) -> Process:
        """The figures so far."""
        seconds = time.monotonic() - self._began
        cpu = (time.process_time() - self._cpu) / seconds if seconds > 0 else 0.0
        lag, late = (percentile(counts, SHARE) if counts else 0.0 for counts in (self._lag, self._late))
        return Process(name=name, cpu=cpu, lag=lag, late=late)

    def machine_cpu(self) -> float:
        """The share of all processors that was busy, or given to other virtual machines."""
        return busy_share(self._machine, psutil.cpu_times())


def busy_share(before: Any, now: Any) -> float:
    """The share of the time between two `psutil.cpu_times()` that processors were not idle."""
    # The kernel counts guests' time in user time too.
    spent = {name: getattr(now, name) - getattr(before, name) for name in now._fields if "guest" not in name}
    total = sum(spent.values())
    return 1 - (spent["idle"] + spent.get("iowait", 0.0)) / total if total > 0 else 0.0


def _count(counts: Counts, seconds: float) -> None:
    number = bucket(seconds)
    counts[number] = counts.get(number, 0) + 1
