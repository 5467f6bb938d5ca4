"""A simulated deployment of one pool: arrivals, routers, replicas that come and go, and the outcome."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import stats

from triptych.deploy.ray.node_router import LOOK_SECONDS
from triptych.loadtests.simulate.autoscaler import DECISION_SECONDS, Autoscaler
from triptych.loadtests.simulate.profiles import Setup
from triptych.loadtests.simulate.simulated_engine import Engine, Events
from triptych.loadtests.simulate.simulated_router import Router
from triptych.router.errors import QueueFull
from triptych.router.items import Job

BLOCKS = 10


class Sample(NamedTuple):
    """A moment of a run with autoscaling: requests a second, replicas that serve, replicas that cost."""

    at: float
    rate: float
    serving: int
    held: int


@dataclass(slots=True)
class Outcome:
    """Requests that arrived after the warm-up.

    `latency` has the seconds of served requests, in order of completion. `busy` is the share of the
    replicas' time that their engines spent in steps.
    """

    requests: int = 0
    refused: int = 0
    expired: int = 0
    latency: list[float] = field(default_factory=list)
    busy: float = 0.0
    replica_seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)

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
    return float(stats.t.ppf(0.975, BLOCKS - 1) * stats.sem(blocks))


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
        names = [f"{setup.seed} {index}" for index in range(setup.routers)]
        self.routers = [Router(name, self.events, setup, self._ended) for name in names]
        # All engines that ever served, those that serve, and those that start.
        self._engines: list[Engine] = []
        self._serving: list[Engine] = []
        self._starting: list[Engine] = []
        self._serve([self._engine() for _ in range(setup.replicas)])
        self._autoscaler = Autoscaler(setup.autoscaling) if setup.autoscaling else None
        self._target = setup.replicas

    def run(self) -> Outcome:
        outcome, events = self.outcome, self.events
        self._next_arrival()
        if self._autoscaler:
            events.after(0.0, self._tick)
            for index, router in enumerate(self.routers):
                events.after((index + 0.5) * LOOK_SECONDS / len(self.routers), self._report, router)
        events.run(self._warm_up)
        before = sum(engine.busy for engine in self._engines)
        events.run(self._seconds)
        if self._autoscaler is None:
            outcome.replica_seconds = len(self._serving) * (self._seconds - self._warm_up)
        busy = sum(engine.busy for engine in self._engines) - before
        outcome.busy = busy / max(outcome.replica_seconds, 1e-9)
        self._autoscaler = None
        events.run()
        return outcome

    def _next_arrival(self) -> None:
        """Thinning: draw arrivals at the peak's rate, and keep a share of them."""
        draw, now = self._arrivals, self.events.now
        at = now
        while True:
            at += draw.expovariate(self._peak)
            if at >= self._seconds:
                return
            if draw.random() * self._peak <= self._rate(at):
                self.events.after(at - now, self._arrive)
                return

    def _arrive(self) -> None:
        self._next_arrival()
        draw = self._arrivals
        router = self.routers[draw.randrange(len(self.routers))]
        if self.events.now >= self._warm_up:
            self.outcome.requests += 1
        router.arrive(self._setup.lengths.draw(draw))

    def _ended(self, job: Job) -> None:
        if job.admitted_at < self._warm_up:
            return
        if isinstance(job.error, QueueFull):
            self.outcome.refused += 1
        elif job.error is not None:
            self.outcome.expired += 1
        else:
            self.outcome.latency.append(job.done_at - job.admitted_at)

    def _report(self, router: Router) -> None:
        if self._autoscaler is not None:
            self._autoscaler.report(router.report(), self.events.now)
            self.events.after(LOOK_SECONDS, self._report, router)

    def _tick(self) -> None:
        """Scale, and take a sample."""
        if self._autoscaler is None:
            return
        now = self.events.now
        self._target = self._autoscaler.target(self._target, len(self._serving), now)
        self._scale()
        held = len(self._serving) + len(self._starting)
        self.outcome.replica_seconds += held * DECISION_SECONDS
        self.outcome.samples.append(Sample(now, self._rate(now), len(self._serving), held))
        self.events.after(DECISION_SECONDS, self._tick)

    def _scale(self) -> None:
        """Start replicas, or stop some. Those that are still starting stop first."""
        there = len(self._serving) + len(self._starting)
        for _ in range(self._target - there):
            engine = self._engine()
            self._starting.append(engine)
            self.events.after(self._setup.start_seconds, self._started, engine)
        for _ in range(there - self._target):
            if self._starting:
                self._starting.pop()
            else:
                # It finishes its batches. This takes less than a second and is not counted as cost.
                engine = self._serving.pop()
                for router in self.routers:
                    router.drain(engine)

    def _engine(self) -> Engine:
        return Engine(self.events, self._setup.profile, self._service)

    def _started(self, engine: Engine) -> None:
        if engine in self._starting:
            self._starting.remove(engine)
            self._serve([engine])

    def _serve(self, engines: list[Engine]) -> None:
        self._engines += engines
        self._serving += engines
        for router in self.routers:
            router.add(engines)


def steady(setup: Setup, load: float, seconds: float, warm_up: float) -> Outcome:
    """A run at `load` times the capacity of `setup` for `seconds`, after `warm_up`."""
    rate = load * setup.capacity * setup.replicas
    return Simulation(setup, lambda now: rate, rate, warm_up + seconds, warm_up).run()
