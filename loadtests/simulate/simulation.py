"""A simulated deployment of one pool under Poisson arrivals, and its outcome."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from triptych.loadtests.simulate.profiles import Setup
from triptych.loadtests.simulate.simulated_engine import Engine, Events
from triptych.loadtests.simulate.simulated_router import Router
from triptych.router.items import Job

BLOCKS = 10


@dataclass(slots=True)
class Outcome:
    """Requests that arrived after the warm-up; `failed` were refused or late.

    `latency` has the seconds of served requests, in order of completion. `busy` is the share of the
    replicas' time that their engines spent in steps.
    """

    requests: int = 0
    failed: int = 0
    latency: list[float] = field(default_factory=list)
    busy: float = 0.0


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


def simulate(setup: Setup, load: float, seconds: float, warm_up: float = 0.0) -> Outcome:
    """A run at `load` times the capacity of all replicas, `seconds` long after `warm_up`.

    Requests of the warm-up are served but not counted. The run ends when all are done.
    """
    events, outcome = Events(), Outcome()
    arrivals, service = random.Random(f"{setup.seed} a"), random.Random(f"{setup.seed} s")
    rate, end = load * setup.capacity * setup.replicas, warm_up + seconds

    def arrive() -> None:
        gap = arrivals.expovariate(rate)
        if events.now + gap < end:
            events.after(gap, arrive)
        router = routers[arrivals.randrange(len(routers))]
        outcome.requests += events.now >= warm_up
        router.arrive(setup.lengths.draw(arrivals))

    def ended(job: Job) -> None:
        if job.admitted_at < warm_up:
            return
        if job.error is not None or job.done_at > job.deadline:
            outcome.failed += 1
        else:
            outcome.latency.append(job.done_at - job.admitted_at)

    engines = [Engine(events, setup.profile, service) for _ in range(setup.replicas)]
    routers = [
        Router(f"{setup.seed} {index}", events, setup, engines, ended) for index in range(setup.routers)
    ]
    events.after(arrivals.expovariate(rate), arrive)
    events.run(warm_up)
    before = sum(engine.busy for engine in engines)
    events.run(end)
    outcome.busy = (sum(engine.busy for engine in engines) - before) / (setup.replicas * seconds)
    events.run()
    return outcome
