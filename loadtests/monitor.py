"""What the harness costs, and whether it keeps up: the processor it takes, and how late it is."""

import time
from pathlib import Path

from loadtests.bench.cpu import PROC, Machine, machine_seconds
from loadtests.histogram import Counts, bucket, percentile
from loadtests.results import Process

SHARE = 0.99


class Monitor:
    """Of this process, from when it is made. Moments and times in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._lag: Counts = {}
        self._late: Counts = {}

    def beat(self, now: float, due: float) -> None:
        """The event loop comes round to something that was due at `due`."""
        _count(self._lag, now - due)

    def late(self, seconds: float) -> None:
        """A request was sent so much later than it was due."""
        _count(self._late, seconds)

    def read(self, name: str) -> Process:
        """So far."""
        seconds = time.monotonic() - self._began
        cpu = (time.process_time() - self._cpu) / seconds if seconds > 0 else 0.0
        return Process(name=name, cpu=cpu, lag=_high(self._lag), late=_high(self._late))


class MachineMeter:
    """How busy all processors of this machine are, from when it is made."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._before = self._now()

    def read(self) -> float | None:
        """The share that was busy or given to others, 0 to 1; None where the kernel does not say."""
        before, now = self._before, self._now()
        if before is None or now is None or now.all <= before.all:
            return None
        taken = now.busy + now.stolen - before.busy - before.stolen
        return taken / (now.all - before.all)

    def _now(self) -> Machine | None:
        try:
            return machine_seconds(self._proc)
        except OSError:
            return None


def _count(counts: Counts, seconds: float) -> None:
    number = bucket(max(0.0, seconds))
    counts[number] = counts.get(number, 0) + 1


def _high(counts: Counts) -> float:
    return percentile(counts, SHARE) if counts else 0.0
