"""Measures several systems side by side, in interleaved rounds."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from triptych.loadtests.bench.cpu import cpu_seconds
from triptych.loadtests.bench.loops import Reply, Round, Vector
from triptych.loadtests.server_processes import Process

# vLLM on a CPU spins for a second after its last step. The next system waits until it has stopped.
SETTLE_SECONDS = 1.3
# Largest difference of a value of a unit vector between two systems, in float32.
TOLERANCE = 1e-5

Groups = Mapping[str, Process]
"""Processes by the name under which their CPU time is counted."""
Sending = Coroutine[Any, Any, Round]
"""Requests that are ready, and are sent when this is awaited."""


class Row(msgspec.Struct, kw_only=True):
    """One system under one load. Lists hold a value for each round.

    `failures` counts replies by status, 0 if there was no complete reply. `cpu` holds the seconds of
    `cpu_seconds`. `figures` are values that only some benchmarks have.
    """

    load: str
    system: str
    items_per_second: list[float] = []
    p50_ms: list[float] = []
    p99_ms: list[float] = []
    requests: int = 0
    items: int = 0
    failures: dict[str, int] = {}
    vectors_checked: int = 0
    vectors_wrong: int = 0
    cpu: dict[str, float] = {}
    figures: dict[str, list[float]] = {}

    def add(self, done: Round) -> None:
        """Add a round. Latency counts good replies, from the moment they were due.

        Replies beside it count as items, because they share the CPU time, and as failures.
        """
        if good := [(reply.end - reply.due) * 1e3 for reply in done.replies if reply.good]:
            for share, times in ((0.5, self.p50_ms), (0.99, self.p99_ms)):
                times.append(float(np.quantile(good, share, method="inverted_cdf")))
        self.items_per_second.append(done.items_per_second)
        self.requests += len(done.replies)
        for kind, replies in (("", done.replies), ("bulk ", done.beside)):
            for reply in replies:
                if reply.good:
                    self.items += reply.request.items
                else:
                    self.fail(f"{kind}{reply.status}")
        for name, value in done.figures.items():
            self.figures.setdefault(name, []).append(value)

    def fail(self, kind: str) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + 1

    def check(
        self,
        replies: Sequence[Reply],
        reference: dict[int, Sequence[Vector]],
        tolerance: float = TOLERANCE,
    ) -> None:
        """Count vectors that are not of length 1, or differ from `reference` for the same request.

        Adds the vectors of requests that `reference` does not have.
        """
        for reply in replies:
            if own := reply.vectors:
                others = reference.setdefault(reply.request.number, own)
                self.vectors_checked += len(own)
                if not all(np.isfinite(vector).all() for vector in own):
                    self.fail("not finite")
                same = len(own) == len(others)
                apart = partial(differ, tolerance=tolerance)
                self.vectors_wrong += sum(map(apart, own, others)) if same else len(own)

    @contextmanager
    def metered(self, processes: Groups) -> Iterator[None]:
        """Count the CPU time spent inside."""
        groups = {name: process.pid for name, process in processes.items()}
        before = cpu_seconds(groups)
        yield
        for name, seconds in cpu_seconds(groups).items():
            self.cpu[name] = self.cpu.get(name, 0.0) + seconds - before[name]


class Result(msgspec.Struct, kw_only=True):
    """One benchmark, run once. With an `error` it ended early, and has what was measured until then."""

    name: str
    title: str
    quick: bool
    began: str
    machine: str
    revision: str
    seconds: float = 0.0
    rows: list[Row] = []
    figures: dict[str, float] = {}
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """One system under one load.

    `prepare` makes the requests of a round, from its number and the last round's items a second (0 at
    first). The coroutine that it returns sends them.
    """

    load: str
    system: str
    processes: Groups
    prepare: Callable[[int, float], Sending]


async def interleaved(
    trials: Sequence[Trial],
    rounds: int,
    settle_seconds: float = SETTLE_SECONDS,
    tolerance: float = TOLERANCE,
) -> list[Row]:
    """One row for each trial, from `rounds` rounds after a warm-up."""
    rows: list[Row] = []
    rates = [0.0] * len(trials)
    for number in tqdm(range(rounds + 1), desc=trials[0].load, unit="round", leave=False):
        if number < 2:
            # The first round is the warm-up.
            rows = [Row(load=trial.load, system=trial.system) for trial in trials]
        reference: dict[int, Sequence[Vector]] = {}
        for index, (trial, row) in enumerate(zip(trials, rows, strict=True)):
            load = trial.prepare(number, rates[index])
            await asyncio.sleep(settle_seconds)
            with _without_collections(), row.metered(trial.processes):
                done = await load
            rates[index] = done.items_per_second
            row.add(done)
            row.check(done.replies, reference, tolerance)
    return rows


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collections: those of the load generator would count as latency, up to 0.3 s."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def differ(one: Vector, other: Vector, tolerance: float = TOLERANCE) -> bool:
    """Whether two vectors are not the same unit vector."""
    if one.shape != other.shape or one.ndim != 1 or not np.isfinite(one).all():
        return True
    return bool(abs(np.linalg.norm(one) - 1) > 1e-3) or not np.abs(one - other).max() < tolerance
