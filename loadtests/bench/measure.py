"""Measures several systems side by side, in interleaved rounds."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from loadtests.bench.cpu import Meter
from loadtests.bench.loops import Read, Reply, Request, Vector, closed_loop
from loadtests.bench.rows import Row
from loadtests.bench.stats import percentile
from loadtests.processes import Process

# vLLM on a CPU spins for a second after its last step. The next system waits until it has stopped.
SETTLE_SECONDS = 1.3
# Largest difference of a value of a unit vector between two systems, in float32.
TOLERANCE = 1e-5
# The vectors of one reply in so many are checked.
SAMPLE = 40

Groups = Mapping[str, Sequence[Process]]
"""Processes by the name under which their CPU time is counted."""


@dataclass(frozen=True)
class Scale:
    """The number of measured rounds, and about how long each takes."""

    rounds: int
    seconds: float
    quick: bool


FULL = Scale(rounds=5, seconds=1.5, quick=False)
QUICK = Scale(rounds=2, seconds=0.6, quick=True)


@dataclass(frozen=True)
class Way:
    """One system: its address, its requests (from the texts of one request), and how to read a reply.

    With `read_all` its client has to read every reply to get the vectors.
    """

    name: str
    processes: Groups
    url: str
    make: Callable[[list[str]], bytes]
    read: Read
    read_all: bool = False


@dataclass(frozen=True)
class Load:
    """Requests of `texts` texts of `tokens` tokens each, over `concurrency` connections."""

    name: str
    concurrency: int
    tokens: int = 20
    texts: int = 1


class Collector:
    """Adds up the rounds of one system under one load."""

    def __init__(self, load: str, system: str) -> None:
        self.row = Row(load=load, system=system)
        self._cpu: dict[str, float] = {}
        self._all = self._elsewhere = self._stolen = 0.0

    def add(self, replies: Sequence[Reply], items_per_second: float) -> None:
        """Add a round. Latency is that of good replies, from the moment they were due."""
        row = self.row
        good = [(reply.end - reply.due) * 1e3 for reply in replies if reply.good]
        if good:
            row.p50_ms.append(percentile(good, 0.5))
            row.p99_ms.append(percentile(good, 0.99))
        row.items_per_second.append(items_per_second)
        row.requests += len(replies)
        row.items += sum(reply.request.items for reply in replies if reply.good)
        for reply in replies:
            if not reply.good:
                row.fail(str(reply.status))

    def figure(self, name: str, value: float) -> None:
        self.row.figures.setdefault(name, []).append(value)

    def check(self, vectors: Mapping[int, list[Vector]], reference: Mapping[int, list[Vector]]) -> None:
        """Count vectors that are not of length 1, or differ from `reference` for the same request."""
        for number, own in vectors.items():
            others = reference.get(number, own)
            self.row.vectors_checked += len(own)
            if len(own) != len(others):
                self.row.vectors_wrong += len(own)
            else:
                self.row.vectors_wrong += sum(map(differ, own, others))

    @contextmanager
    def metered(self, processes: Groups) -> Iterator[None]:
        """Count the CPU time spent inside for the items added inside."""
        meter = Meter({name: [process.pid for process in group] for name, group in processes.items()})
        yield
        spent = meter.read()
        for name, seconds in spent.groups.items():
            self._cpu[name] = self._cpu.get(name, 0.0) + seconds
        self._all, self._elsewhere = self._all + spent.machine, self._elsewhere + spent.elsewhere
        self._stolen += spent.stolen
        row = self.row
        if row.items:
            row.cpu = {name: seconds / row.items * 1e3 for name, seconds in self._cpu.items()}
        if self._all:
            row.elsewhere, row.stolen = self._elsewhere / self._all, self._stolen / self._all


def differ(one: Vector, other: Vector) -> bool:
    """Whether two vectors are not the same unit vector."""
    if one.shape != other.shape or one.ndim != 1 or not np.isfinite(one).all():
        return True
    return bool(abs(np.linalg.norm(one) - 1) > 1e-3) or not np.abs(one - other).max() < TOLERANCE


async def side_by_side(
    load: Load, ways: Sequence[Way], draw: Callable[[str, int, int], list[str]], scale: Scale
) -> list[Row]:
    """One row for each system. All get the same texts."""
    collectors: list[Collector] = []
    rates = [0.0] * len(ways)
    for number in tqdm(range(scale.rounds + 1), desc=load.name, unit="round", leave=False):
        if number < 2:
            # The first round is a warm-up.
            collectors = [Collector(load.name, way.name) for way in ways]
        reference: dict[int, list[Vector]] = {}
        for index, (way, collector) in enumerate(zip(ways, collectors, strict=True)):
            count = _requests(load, rates[index], scale.seconds)
            texts = draw(f"{load.name} {number}", count * load.texts, load.tokens)
            requests = [
                Request(
                    place,
                    way.make(texts[place * load.texts : (place + 1) * load.texts]),
                    load.texts,
                    keep=way.read_all or place % SAMPLE == 0,
                )
                for place in range(count)
            ]
            await asyncio.sleep(SETTLE_SECONDS)
            with collector.metered(way.processes):
                done = await closed_loop(way.url, requests, load.concurrency, way.read, read_all=way.read_all)
                collector.add(done.replies, done.items_per_second)
            rates[index] = done.items_per_second
            vectors = {place: its for place, its in done.vectors.items() if place % SAMPLE == 0}
            collector.check(vectors, reference)
            reference = {**vectors, **reference}
    return [collector.row for collector in collectors]


def _requests(load: Load, rate: float, seconds: float) -> int:
    """The number of requests that take about `seconds` at the last round's `rate`."""
    least = max(3 * load.concurrency, 24 // load.texts)
    return max(least, math.ceil(rate * seconds / load.texts) + load.concurrency) if rate else least
