"""Measures several systems side by side, in interleaved rounds."""

import asyncio
import contextlib
import gc
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil
from tqdm import tqdm

from triptych.loadtests.bench.loops import Reply, Round, Vector
from triptych.loadtests.bench.servers import Servers, SizeName

GENERATOR, OTHERS = "load generator", "other programs"
Groups = Mapping[str, subprocess.Popen[bytes]]
"""Processes by the name under which their CPU time is counted."""
Sending = Coroutine[Any, Any, Round]
"""Requests that are ready, and are sent when this is awaited."""


class Scale(NamedTuple):
    """The number of measured rounds, and about how long each takes.

    vLLM on a CPU spins for a second after its last step. The next system waits `settle_seconds`, until it has
    stopped. `tolerance`: the largest difference of a value of a unit vector between two systems.
    """

    rounds: int
    seconds: float
    quick: bool = False
    settle_seconds: float = 1.3
    # In float32.
    tolerance: float = 1e-5


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
        if good := [reply.seconds * 1e3 for reply in done.replies if reply.good]:
            p50, p99 = np.quantile(good, (0.5, 0.99), method="inverted_cdf")
            self.p50_ms.append(float(p50))
            self.p99_ms.append(float(p99))
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
        self, replies: Sequence[Reply], reference: dict[int, Sequence[Vector]], tolerance: float
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
                if len(own) == len(others):
                    pairs = zip(own, others, strict=True)
                    self.vectors_wrong += sum(differ(one, other, tolerance) for one, other in pairs)
                else:
                    self.vectors_wrong += len(own)

    @contextlib.contextmanager
    def metered(self, processes: Groups) -> Iterator[None]:
        """Count the CPU time spent inside, without garbage collections, which add up to 0.3 s of latency."""
        gc.collect()
        gc.disable()
        try:
            before = cpu_seconds(processes)
            yield
            for name, seconds in cpu_seconds(processes).items():
                self.cpu[name] = self.cpu.get(name, 0.0) + seconds - before[name]
        finally:
            gc.enable()


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


class Bench(NamedTuple):
    """The servers, how much to measure, the model's size on a GPU, and what earlier sections found."""

    servers: Servers
    scale: Scale
    size: SizeName
    report: dict[str, Result]


class Trial(NamedTuple):
    """One system under one load.

    `prepare` makes the requests of a round, from its number and the last round's items a second (0 at
    first). The coroutine that it returns sends them.
    """

    load: str
    system: str
    processes: Groups
    prepare: Callable[[int, float], Sending]


async def interleaved(trials: Sequence[Trial], scale: Scale) -> list[Row]:
    """One row for each trial, from the rounds of `scale` after a warm-up."""
    rates = [0.0] * len(trials)
    for number in tqdm(range(scale.rounds + 1), desc=trials[0].load, unit="round", leave=False):
        if number < 2:
            # The first round is the warm-up.
            rows = [Row(load=trial.load, system=trial.system) for trial in trials]
        reference: dict[int, Sequence[Vector]] = {}
        for index, (trial, row) in enumerate(zip(trials, rows, strict=True)):
            load = trial.prepare(number, rates[index])
            await asyncio.sleep(scale.settle_seconds)
            with row.metered(trial.processes):
                done = await load
            rates[index] = done.items_per_second
            row.add(done)
            row.check(done.replies, reference, scale.tolerance)
    return rows


def differ(one: Vector, other: Vector, tolerance: float) -> bool:
    """Whether two vectors are not the same unit vector."""
    if one.shape != other.shape or one.ndim != 1 or not np.isfinite(one).all():
        return True
    return bool(abs(np.linalg.norm(one) - 1) > 1e-3) or not np.abs(one - other).max() < tolerance


def cpu_seconds(groups: Groups) -> dict[str, float]:
    """CPU seconds so far by group, of this process, and of all other programs.

    Time that the hypervisor took counts as time of other programs.
    """
    seconds = {name: _tree_seconds(process.pid) for name, process in groups.items()}
    seconds[GENERATOR] = _seconds(psutil.Process())
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return seconds | {OTHERS: busy - sum(seconds.values())}


def _tree_seconds(pid: int) -> float:
    """CPU seconds of a process, its descendants, and their ended children; 0 for a process that is gone."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += _seconds(process)
    return total


def _seconds(process: psutil.Process) -> float:
    """User and system time of a process and of its children that have ended."""
    return float(sum(process.cpu_times()[:4]))
