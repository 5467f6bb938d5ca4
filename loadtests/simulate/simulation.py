"""A simulated deployment of one pool: arrivals, routers, replicas that come and go, and the outcome."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deploy.ray.config import Autoscaling
from deploy.ray.node_router import LOOK_SECONDS
from loadtests.simulate.autoscaler import DECISION_SECONDS, Autoscaler
from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Lengths, Profile
from loadtests.simulate.simulated_engine import Engine
from loadtests.simulate.simulated_router import Router, default
from router.errors import QueueFull
from router.items import Job
from router.pool.pace import BATCHES_UNTIL_JUDGED

TIMEOUT_SECONDS = 60.0
BLOCKS = 10
# The 97.5 % quantile of Student's t distribution with BLOCKS - 1 degrees of freedom.
STUDENT = 2.26


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The deployment. A replica starts in `start_seconds`.

    With `learned` the routers know the pace of the first replicas from earlier batches.
    """

    profile: Profile
    lengths: Lengths
    replicas: int
    routers: int = 1
    lanes: int = default("lanes")
    batch_items: int = default("batch_items")
    autoscaling: Autoscaling | None = None
    start_seconds: float = 0.0
    learned: bool = True
    seed: int = 1

    @property
    def capacity(self) -> float:
        """Requests a second of one replica with full steps."""
        return self.profile.capacity(self.lengths.mean)


class Sample(NamedTuple):
    """A moment of a run with autoscaling: requests a second, replicas that serve, replicas that cost."""

    at: float
    rate: float
    serving: int
    held: int


@dataclass(slots=True)
class Outcome:
    """Requests that arrived after the warm-up. Times in seconds.

    `latency` and `waited` are of served requests, in order of completion. `busy` is the share of the
    replicas' time that their engines spent in steps.
    """

    requests: int = 0
    served: int = 0
    refused: int = 0
    expired: int = 0
    arrived_at: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    busy: float = 0.0
    items_per_batch: float = 0.0
    replica_seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """A percentile of the latency."""
        return percentile(self.latency, share)

    def uncertainty(self, share: float) -> float:
        """Half of the 95 % confidence interval of `percentile`."""
        return uncertainty(self.latency, share)

    def late(self, seconds: float) -> float:
        """The share of requests that were not served within `seconds`."""
        in_time = sum(latency <= seconds for latency in self.latency)
        return 1 - in_time / self.requests if self.requests else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank. NaN without values."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else math.nan


def uncertainty(values: Sequence[float], share: float) -> float:
    """Half of the 95 % confidence interval of a percentile. NaN for fewer than 100 values.

    Requests that are close in time depend on each other. So the values, in order of time, are cut into
    blocks, whose percentiles are nearly independent.
    """
    if len(values) < 10 * BLOCKS:
        return math.nan
    blocks = [np.quantile(block, share) for block in np.array_split(np.asarray(values), BLOCKS)]
    return float(STUDENT * np.std(blocks, ddof=1) / math.sqrt(BLOCKS))


class Simulation:
    """One run. `rate` gives requests a second at a time, at most `peak`. They arrive for `seconds`.

    Requests of the first `warm_up` seconds are served but not counted. The run ends when all are done.
    """

    def __init__(
        self,
        setup: Setup,
        rate: Callable[[float], float],
        peak: float,
        seconds: float,
        warm_up: float = 0.0,
    ) -> None:
        self.events = Events()
        self.outcome = Outcome()
        self._setup = setup
        self._rate, self._peak, self._seconds, self._warm_up = rate, peak, seconds, warm_up
        self._arrivals, self._service = random.Random(f"{setup.seed} a"), random.Random(f"{setup.seed} s")
        self.routers = [
            Router(
                f"{setup.seed} {index}",
                self.events,
                setup.profile,
                setup.lanes,
                setup.batch_items,
                self._ended,
                self._drained,
            )
            for index in range(setup.routers)
        ]
        self._serving: list[Engine] = []
        # The number of routers that still have batches there.
        self._draining: dict[Engine, int] = {}
        self._starting = 0
        self._cancelled = 0
        self._busy_of_gone = 0.0
        self._add(setup.replicas, learned=setup.learned)
        self._autoscaler = Autoscaler(setup.autoscaling) if setup.autoscaling else None
        self._target = setup.replicas

    def run(self) -> Outcome:
        outcome, events = self.outcome, self.events
        self._next_arrival()
        if self._autoscaler:
            events.at(0.0, self._tick)
            for index, router in enumerate(self.routers):
                events.at((index + 0.5) * LOOK_SECONDS / len(self.routers), self._report, router)
        events.run(self._warm_up)
        before, batches = self._busy(), self._batches()
        events.run(self._seconds)
        if self._autoscaler is None:
            outcome.replica_seconds = len(self._serving) * (self._seconds - self._warm_up)
        outcome.busy = (self._busy() - before) / max(outcome.replica_seconds, 1e-9)
        done = self._batches() - batches
        outcome.items_per_batch = outcome.served / done if done else math.nan
        self._autoscaler = None
        events.run()
        return outcome

    def _next_arrival(self) -> None:
        """Thinning: draw arrivals at the peak's rate, and keep a share of them."""
        draw, now = self._arrivals, self.events.now
        while True:
            now += draw.expovariate(self._peak)
            if now >= self._seconds:
                return
            if draw.random() * self._peak <= self._rate(now):
                self.events.at(now, self._arrive)
                return

    def _arrive(self) -> None:
        self._next_arrival()
        draw = self._arrivals
        router = self.routers[draw.randrange(len(self.routers))]
        if self.events.now >= self._warm_up:
            self.outcome.requests += 1
        router.arrive(self._setup.lengths.draw(draw), TIMEOUT_SECONDS)

    def _ended(self, job: Job) -> None:
        if job.admitted_at < self._warm_up:
            return
        outcome = self.outcome
        if isinstance(job.error, QueueFull):
            outcome.refused += 1
        elif job.error is not None:
            outcome.expired += 1
        else:
            outcome.served += 1
            outcome.arrived_at.append(job.admitted_at)
            outcome.latency.append(job.done_at - job.admitted_at)
            outcome.waited.append(job.started_at - job.admitted_at)

    def _report(self, router: Router) -> None:
        if self._autoscaler is not None:
            self._autoscaler.report(router.report(), self.events.now)
            self.events.at(self.events.now + LOOK_SECONDS, self._report, router)

    def _tick(self) -> None:
        """Scale, and take a sample."""
        if self._autoscaler is None:
            return
        now = self.events.now
        self._scale(self._autoscaler.target(self._target, len(self._serving), now))
        held = len(self._serving) + self._starting - self._cancelled + len(self._draining)
        if now >= self._warm_up:
            self.outcome.replica_seconds += held * DECISION_SECONDS
            self.outcome.samples.append(Sample(now, self._rate(now), len(self._serving), held))
        self.events.at(now + DECISION_SECONDS, self._tick)

    def _scale(self, target: int) -> None:
        """Start replicas, or stop some. Those that are still starting stop first."""
        self._target = target
        there = len(self._serving) + self._starting - self._cancelled
        for _ in range(target - there):
            self._starting += 1
            self.events.at(self.events.now + self._setup.start_seconds, self._started)
        for _ in range(there - target):
            if self._starting > self._cancelled:
                self._cancelled += 1
            else:
                self._remove(self._serving.pop())

    def _started(self) -> None:
        self._starting -= 1
        if self._cancelled:
            self._cancelled -= 1
        else:
            self._add(1)

    def _add(self, count: int, *, learned: bool = False) -> None:
        engines = [Engine(self.events, self._setup.profile, self._service) for _ in range(count)]
        self._serving += engines
        for router in self.routers:
            router.add(engines, [list(self._earlier_batches()) for _ in engines] if learned else ())

    def _earlier_batches(self) -> Iterator[tuple[int, float]]:
        profile = self._setup.profile
        for _ in range(BATCHES_UNTIL_JUDGED):
            tokens = self._setup.lengths.draw(self._service)
            yield tokens, profile.call_seconds + profile.step(1, tokens, self._service)

    def _remove(self, engine: Engine) -> None:
        self._draining[engine] = len(self.routers)
        for router in self.routers:
            router.drain(engine)

    def _drained(self, engine: Engine) -> None:
        self._draining[engine] -= 1
        if not self._draining[engine]:
            del self._draining[engine]
            self._busy_of_gone += engine.busy

    def _engines(self) -> list[Engine]:
        return [*self._serving, *self._draining]

    def _busy(self) -> float:
        return self._busy_of_gone + sum(engine.busy for engine in self._engines())

    def _batches(self) -> int:
        return sum(engine.batches for engine in self._engines())


def steady(setup: Setup, load: float, seconds: float, warm_up: float) -> Outcome:
    """A run at `load` times the capacity of `setup` for `seconds`, after `warm_up`."""
    rate = load * setup.capacity * setup.replicas
    return Simulation(setup, lambda now: rate, rate, warm_up + seconds, warm_up).run()
