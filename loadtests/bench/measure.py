"""Ways of asking for the same vectors, measured side by side: interleaved rounds into one row each."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from loadtests.bench.cpu import Meter
from loadtests.bench.http import Reply
from loadtests.bench.load import Read, Round, Stream, Vector, closed_loop
from loadtests.bench.results import Row
from loadtests.bench.stats import percentile
from loadtests.processes import Process

# vLLM's processes on a CPU spin for a second after their last step; the next way must not pay for it.
SETTLE_SECONDS = 1.3
# Largest difference that a value of a unit vector may have between two ways, in float32.
TOLERANCE = 1e-5
# One reply in so many is read, its vectors checked and compared.
SAMPLE = 40


Groups = Mapping[str, Sequence[Process]]
"""Processes with all below them, by the name under which their CPU time is counted."""


@dataclass(frozen=True)
class Scale:
    """How much is measured: rounds that count, and about how long each takes."""

    rounds: int
    seconds: float
    quick: bool


FULL = Scale(rounds=5, seconds=1.5, quick=False)
QUICK = Scale(rounds=2, seconds=0.6, quick=True)


@dataclass(frozen=True)
class Way:
    """One system. `streams` makes the requests for some texts, given as one list for each request.

    `read_all`: its client has to read every reply to get its vectors.
    """

    name: str
    processes: Groups
    streams: Callable[[Sequence[list[str]], int], list[Stream]]
    read: Read
    read_all: bool = False


@dataclass(frozen=True)
class Load:
    """So many texts of so many tokens a request, over so many connections."""

    name: str
    concurrency: int
    tokens: int = 20
    texts: int = 1


class Collector:
    """Rounds of one way under one load become its row."""

    def __init__(self, load: str, system: str) -> None:
        self.row = Row(load=load, system=system)
        self._cpu: dict[str, float] = {}
        self._all = self._elsewhere = self._stolen = 0.0

    def add(self, replies: Sequence[Reply], items_per_second: float | None = None) -> None:
        """Count replies; latencies are those of the good ones, from the moment they were due."""
        row = self.row
        good = [(reply.end - reply.due) * 1e3 for reply in replies if reply.good]
        if good:
            row.p50_ms.append(percentile(good, 0.5))
            row.p99_ms.append(percentile(good, 0.99))
        if items_per_second is not None:
            row.items_per_second.append(items_per_second)
        row.requests += len(replies)
        row.items += sum(reply.request.items for reply in replies if reply.good)
        for reply in replies:
            if not reply.good:
                row.failures[str(reply.status)] = row.failures.get(str(reply.status), 0) + 1

    def figure(self, name: str, value: float) -> None:
        self.row.figures.setdefault(name, []).append(value)

    def check(self, vectors: Mapping[int, list[Vector]], reference: Mapping[int, list[Vector]]) -> None:
        """Count the vectors that are no unit vectors, or not those that another way gave for the text."""
        for number, own in vectors.items():
            others = reference.get(number, own)
            self.row.vectors_checked += len(own)
            if len(own) != len(others):
                self.row.vectors_wrong += len(own)
            else:
                self.row.vectors_wrong += sum(map(differ, own, others))

    @contextmanager
    def metered(self, processes: Groups) -> Iterator[None]:
        """Account for the CPU time of everything that happens inside, to the items added inside."""
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
    """Whether the two are not the same unit vector."""
    if one.shape != other.shape or one.ndim != 1 or not np.isfinite(one).all():
        return True
    return bool(abs(np.linalg.norm(one) - 1) > 1e-3) or not np.abs(one - other).max() < TOLERANCE


@dataclass
class _Pace:
    """How many requests make a round of the wanted length, from the rates seen so far."""

    load: Load
    seconds: float
    rates: list[float] = field(default_factory=list)

    def count(self) -> int:
        least = 3 * self.load.concurrency
        if not self.rates:
            return max(least, 24 // self.load.texts)
        return max(least, math.ceil(self.rates[-1] * self.seconds / self.load.texts) + self.load.concurrency)


async def side_by_side(
    load: Load, ways: Sequence[Way], draw: Callable[[str, int, int], list[str]], scale: Scale
) -> list[Row]:
    """One row for each way. The first round warms up and is not counted; all ways get the same texts."""
    collectors = [Collector(load.name, way.name) for way in ways]
    paces = [_Pace(load, scale.seconds) for _ in ways]
    for number in tqdm(range(scale.rounds + 1), desc=load.name, unit="round", leave=False):
        reference: dict[int, list[Vector]] = {}
        for way, collector, pace in zip(ways, collectors, paces, strict=True):
            texts = draw(f"{load.name} {number}", pace.count() * load.texts, load.tokens)
            requests = [texts[start : start + load.texts] for start in range(0, len(texts), load.texts)]
            streams = way.streams(requests, load.concurrency)
            await asyncio.sleep(SETTLE_SECONDS)
            if not number:
                warm = await closed_loop(streams, way.read, read_all=way.read_all)
                pace.rates.append(warm.items_per_second)
                continue
            with collector.metered(way.processes):
                done = await closed_loop(streams, way.read, read_all=way.read_all)
                collector.add(done.replies, done.items_per_second)
            pace.rates.append(done.items_per_second)
            vectors = sampled(done)
            collector.check(vectors, reference)
            reference = {**vectors, **reference}
    return [collector.row for collector in collectors]


def sampled(done: Round) -> dict[int, list[Vector]]:
    return {number: vectors for number, vectors in done.vectors.items() if number % SAMPLE == 0}
