"""A whole deployment of one pool: arrivals, routers, replicas that come and go, and what became of it all."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from deploy.ray.config import Autoscaling
from deploy.ray.node_router import LOOK_SECONDS
from loadtests.simulate.autoscaler import DECISION_SECONDS, Autoscaler
from loadtests.simulate.engine import Engine
from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Lengths, Profile
from loadtests.simulate.router import Router, default
from loadtests.simulate.stats import percentile, uncertainty
from router.errors import QueueFull
from router.items import Gather
from router.pool.pace import BATCHES_UNTIL_JUDGED

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated. `bulk` is the share of requests that are bulk; `start_seconds` a replica's start.

    With `tokens_held` the autoscaler has the rule that goes by these instead of the deployment's.
    `learned` says that the routers know from before how fast the first replicas are; otherwise they have just
    been started, all of them together.
    """

    profile: Profile
    lengths: Lengths
    replicas: int
    routers: int = 1
    lanes: int = default("lanes")
    batch_items: int = default("batch_items")
    bulk: float = 0.0
    autoscaling: Autoscaling | None = None
    tokens_held: float | None = None
    start_seconds: float = 0.0
    learned: bool = True
    seed: int = 1

    @property
    def capacity(self) -> float:
        """Requests a second that one replica does with full steps."""
        return self.profile.capacity(self.lengths.mean)


class Sample(NamedTuple):
    """One second of a run: when, requests a second asked for, replicas that serve and that cost, and the
    tokens that wait and run."""

    at: float
    rate: float
    serving: int
    held: int
    tokens: float


@dataclass(slots=True)
class Outcome:
    """What became of the requests that arrived after the warm-up; times in seconds.

    `arrived_at` and `latency` are those of requests served, in the order of their end. `busy` is the share of
    the serving replicas' time in which their engines were in a step.
    """

    requests: int = 0
    served: int = 0
    refused: int = 0
    expired: int = 0
    bulk_served: int = 0
    arrived_at: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    busy: float = 0.0
    items_per_batch: float = 0.0
    replica_seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Of the latency."""
        return percentile(self.latency, share)

    def uncertainty(self, share: float) -> float:
        """Half of the 95 % confidence interval of `percentile`."""
        return uncertainty(self.latency, share)

    def late(self, seconds: float) -> float:
        """The share of requests that took longer than `seconds`, or were not served at all."""
        in_time = sum(latency <= seconds for latency in self.latency)
        return 1 - in_time / self.requests if self.requests else 0.0


class Simulation:
    """One run: `rate` gives requests a second at a time, never over `peak`; they come for `seconds`.

    Requests of the first `warm_up` seconds are served but not counted. At the end all is worked off.
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
        self._routers = [
            Router(
                f"{setup.seed} {index}",
                self.events,
                setup.profile,
                setup.lanes,
                setup.batch_items,
                self._ended,
            )
            for index in range(setup.routers)
        ]
        for router in self._routers:
            router.drained = self._drained
        self._serving: list[Engine] = []
        self._draining: dict[Engine, int] = {}
        self._starting = 0
        self._cancelled = 0
        self._busy_of_gone = 0.0
        for _ in range(setup.replicas):
            self._add(setup.learned)
        self._autoscaler = Autoscaler(setup.autoscaling, setup.tokens_held) if setup.autoscaling else None
        self._target = setup.replicas

    def run(self, progress: Callable[[float], object] = lambda seconds: None) -> Outcome:
        """Simulate; `progress` is called with simulated seconds as they pass."""
        outcome, events = self.outcome, self.events
        self._next_arrival()
        if self._autoscaler:
            events.at(0.0, self._tick)
            for index, router in enumerate(self._routers):
                events.at((index + 0.5) * LOOK_SECONDS / len(self._routers), self._report, router)
        events.run(self._warm_up)
        progress(self._warm_up)
        before, batches = self._busy(), self._batches()
        part = (self._seconds - self._warm_up) / 20
        for index in range(20):
            events.run(self._warm_up + part * (index + 1))
            progress(part)
        if self._autoscaler is None:
            outcome.replica_seconds = len(self._serving) * (self._seconds - self._warm_up)
        outcome.busy = (self._busy() - before) / max(outcome.replica_seconds, 1e-9)
        done = self._batches() - batches
        outcome.items_per_batch = outcome.served / done if done else math.nan
        self._autoscaler = None
        events.run()
        return outcome

    def _next_arrival(self) -> None:
        """Thinning: events at the peak's rate, of which as many count as the rate of the moment says."""
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
        router = self._routers[draw.randrange(len(self._routers))]
        bulk = self._setup.bulk > 0 and draw.random() < self._setup.bulk
        if self.events.now >= self._warm_up:
            self.outcome.requests += 1
        router.arrive(self._setup.lengths.draw(draw), bulk, TIMEOUT_SECONDS)

    def _ended(self, gather: Gather) -> None:
        if gather.admitted_at < self._warm_up:
            return
        outcome = self.outcome
        if gather.error is None:
            outcome.served += 1
            if gather.items[0].bulk:
                outcome.bulk_served += 1
            else:
                outcome.arrived_at.append(gather.admitted_at)
                outcome.latency.append(gather.done_at - gather.admitted_at)
                outcome.waited.append(gather.taken_at - gather.admitted_at)
            return
        outcome.refused_at.append(gather.admitted_at)
        if isinstance(gather.error, QueueFull):
            outcome.refused += 1
        else:
            outcome.expired += 1

    def _report(self, router: Router) -> None:
        """A router says what it has to do, and again in a while."""
        if self._autoscaler is not None:
            self._autoscaler.report(router.report(), self.events.now)
            self.events.at(self.events.now + LOOK_SECONDS, self._report, router)

    def _tick(self) -> None:
        """Decide, and note how things stand."""
        if self._autoscaler is None:
            return
        now = self.events.now
        self._scale(self._autoscaler.target(self._target, len(self._serving), now))
        held = len(self._serving) + self._starting - self._cancelled + len(self._draining)
        if now >= self._warm_up:
            self.outcome.replica_seconds += held * DECISION_SECONDS
            pressures = [router.pressure for router in self._routers]
            tokens = sum(pressure.waiting_tokens + pressure.running_tokens for pressure in pressures)
            self.outcome.samples.append(Sample(now, self._rate(now), len(self._serving), held, tokens))
        self.events.at(now + DECISION_SECONDS, self._tick)

    def _scale(self, target: int) -> None:
        """Start replicas, or stop some: those still starting first."""
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
            self._add()

    def _add(self, learned: bool = False) -> None:
        engine = Engine(self.events, self._setup.profile, self._service)
        self._serving.append(engine)
        for router in self._routers:
            router.add(engine, self._batches_of_before() if learned else ())

    def _batches_of_before(self) -> Iterator[tuple[int, float]]:
        profile = self._setup.profile
        for _ in range(BATCHES_UNTIL_JUDGED):
            tokens = self._setup.lengths.draw(self._service)
            yield tokens, profile.call_seconds + profile.step(1, tokens, self._service)

    def _remove(self, engine: Engine) -> None:
        self._draining[engine] = len(self._routers)
        for router in self._routers:
            router.drain(engine)

    def _drained(self, engine: Engine) -> None:
        self._draining[engine] -= 1
        if not self._draining[engine]:
            del self._draining[engine]
            self._busy_of_gone += engine.busy

    def _engines(self) -> Sequence[Engine]:
        return [*self._serving, *self._draining]

    def _busy(self) -> float:
        return self._busy_of_gone + sum(engine.busy for engine in self._engines())

    def _batches(self) -> int:
        return sum(engine.batches for engine in self._engines())


def steady(setup: Setup, load: float, seconds: float, warm_up: float) -> Outcome:
    """A run at `load` times the capacity of `setup`, after `warm_up` for `seconds`."""
    rate = load * setup.capacity * setup.replicas
    return Simulation(setup, lambda now: rate, rate, warm_up + seconds, warm_up).run()
