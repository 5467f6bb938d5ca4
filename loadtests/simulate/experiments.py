"""The experiments of docs/SCALE.md: each makes jobs, and each job gives one row of a table."""

import gc
import logging
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from triptych.deploy.ray.config import Autoscaling
from triptych.loadtests.bench.summary import number
from triptych.loadtests.simulate.profiles import GPU, NANO, PAGES, SHORT, TEXTS, Setup
from triptych.loadtests.simulate.simulation import Sample, Simulation, percentile, steady, uncertainty

SLO_SECONDS = 1.0
# A run lasts until about so many requests have come, but at least ten steps and at most a minute.
REQUESTS, QUICK_REQUESTS = 60_000, 10_000
LOADS, QUICK_LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1), (0.3, 0.7, 0.9, 1.1)
# With 1,000 replicas a simulated second takes minutes.
LOADS_OF_1000 = (0.5, 0.7, 0.9, 1.0)
# A day of 24 hours in one: slopes are 24 times as steep, starts and delays are not shortened.
DAY_SECONDS = 3600.0
# Routers by replicas for load 1.0: docs/SCALE.md, "Around the engines", says how many they need.
ROUTERS = {1: 1, 10: 1, 100: 7, 1000: 191}
# A replica's tokens a second with full steps.
FULL_TOKENS = GPU.capacity(PAGES.mean) * PAGES.mean


class Result(NamedTuple):
    """A row by column, and the samples of a run with autoscaling."""

    row: dict[str, str | float]
    samples: Sequence[Sample] = ()


Job = Callable[[], Result]


def load(quick: bool) -> Iterator[Job]:
    """Latency by load, for 1 to 1,000 replicas."""
    for replicas, routers in ROUTERS.items():
        if quick and replicas > 100:
            continue
        setup = Setup(profile=GPU, lengths=TEXTS, replicas=replicas, routers=routers)
        loads = QUICK_LOADS if quick else LOADS_OF_1000 if replicas == 1000 else LOADS
        yield from (partial(_steady, setup, load, quick) for load in loads)
    for replicas in (1, 10):
        setup = Setup(profile=NANO, lengths=SHORT, replicas=replicas)
        yield from (partial(_steady, setup, load, quick) for load in (QUICK_LOADS if quick else LOADS))


def routers(quick: bool) -> Iterator[Job]:
    """Latency of 100 replicas by the number of routers and lanes."""
    for lanes in (4,) if quick else (1, 2, 4):
        for count in (1, 4, 16, 64):
            setup = Setup(profile=GPU, lengths=TEXTS, replicas=100, routers=count, lanes=lanes)
            yield from (partial(_steady, setup, load, quick) for load in (0.5, 0.8))


def started(quick: bool) -> Iterator[Job]:
    """The first seconds of routers that start together and have measured no replica."""
    for count in (1, 16, 64):
        setup = Setup(profile=GPU, lengths=TEXTS, replicas=100, routers=count)
        yield partial(_row, setup, 0.5, seconds=5.0, warm_up=0.0)


def scaling(quick: bool) -> Iterator[Job]:
    """Autoscaling while the load changes."""
    yield from CHANGES[:1] if quick else CHANGES


EXPERIMENTS: dict[str, tuple[str, Callable[[bool], Iterator[Job]]]] = {
    "load": ("Load", load),
    "routers": ("Routers and lanes", routers),
    "started": ("All routers start together: the first 5 s", started),
    "scaling": ("Autoscaling", scaling),
}


def run(names: Sequence[str], quick: bool) -> dict[str, list[Result]]:
    """The results of each experiment. Runs are spread over all cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=_set_up) as pool:
        futures = {name: [pool.submit(job) for job in EXPERIMENTS[name][1](quick)] for name in names}
        with tqdm(total=sum(map(len, futures.values())), unit="run", disable=None) as bar:
            for future in (future for its in futures.values() for future in its):
                future.add_done_callback(lambda _: bar.update())
            return {name: [future.result() for future in its] for name, its in futures.items()}


def _set_up() -> None:
    # Python's defaults spend half of a run on collecting young objects.
    gc.set_threshold(200_000, 20, 1000)
    # The router logs each replica that it finds slow, which happens by chance with this many.
    logging.getLogger("triptych.router").setLevel(logging.ERROR)


def _steady(setup: Setup, load: float, quick: bool) -> Result:
    profile = setup.profile
    rate = load * setup.capacity * setup.replicas
    full_step = profile.seconds + profile.seconds_per_token * profile.step_tokens
    seconds = min(60.0, max((QUICK_REQUESTS if quick else REQUESTS) / rate, 10 * full_step))
    warm_up = 5 * full_step if setup.replicas >= 1000 else max(1.0, 5 * full_step)
    return _row(setup, load, seconds, warm_up)


def _row(setup: Setup, load: float, seconds: float, warm_up: float) -> Result:
    outcome = steady(setup, load, seconds, warm_up)
    return Result(
        {
            "engine": setup.profile.name,
            "replicas": setup.replicas,
            "routers": setup.routers,
            "lanes": setup.lanes,
            "load": load,
            "requests/s": load * setup.capacity * setup.replicas,
            "p50 ms": 1e3 * percentile(outcome.latency, 0.5),
            "p99 ms": 1e3 * percentile(outcome.latency, 0.99),
            "± ms": 1e3 * uncertainty(outcome.latency, 0.99),
            "% busy": 100 * outcome.busy,
            "requests": outcome.requests,
        }
    )


def _bursts(now: float) -> float:
    """Two minutes of load in every ten."""
    return 1.0 if 300 <= now % 600 < 420 else 1e-9


# The load over time in full replicas, its peak, and for how many seconds.
CURVES: dict[str, tuple[Callable[[float], float], float, float]] = {
    "step": (lambda now: 7.0 if 60 <= now < 480 else 1.4, 7.0, 900.0),
    "ramp": (lambda now: 1.0 + 7.0 * min(1.0, now / 600), 8.0, 900.0),
    "day in an hour": (lambda now: 1.0 + 7.0 * math.sin(math.pi * now / DAY_SECONDS) ** 2, 8.0, DAY_SECONDS),
    "bursts": (_bursts, 1.0, 1200.0),
}


def _scaled(curve: str, start: float = 60.0, **changed: float) -> Result:
    """A run with autoscaling. Replicas start in `start` seconds; `changed` are settings of this run only."""
    shape, peak, seconds = CURVES[curve]
    autoscaling = Autoscaling(**{"min": 1, "max": 20, "tokens_per_second": FULL_TOKENS} | changed)
    setup = Setup(
        profile=GPU,
        lengths=PAGES,
        replicas=0 if autoscaling.min == 0 else 2,
        routers=4,
        autoscaling=autoscaling,
        start_seconds=start,
    )
    capacity = setup.capacity
    outcome = Simulation(setup, lambda now: capacity * shape(now), capacity * peak, seconds).run()
    row: dict[str, str | float] = {
        "curve": curve,
        "start s": start,
        "changed": ", ".join(f"{name} {number(value)}" for name, value in changed.items()),
        "% late": 100 * outcome.late(SLO_SECONDS),
        "% refused": 100 * (outcome.refused + outcome.expired) / max(1, outcome.requests),
        "p99 s": percentile(outcome.latency, 0.99),
        "most replicas": max(sample.held for sample in outcome.samples),
        "replica hours": outcome.replica_seconds / 3600,
        "full replicas' hours": sum(shape(float(second)) for second in range(int(seconds))) / 3600,
    }
    return Result(row, [sample._replace(rate=sample.rate / capacity) for sample in outcome.samples])


STEP = partial(_scaled, "step")
FROM_ZERO = partial(_scaled, "bursts", min=0, to_zero_seconds=60)
CHANGES: list[Job] = [
    STEP,
    partial(STEP, start=10.0),
    partial(STEP, start=180.0),
    partial(STEP, up_seconds=0),
    partial(STEP, up_seconds=30),
    partial(STEP, down_seconds=60),
    partial(STEP, utilization=0.5),
    partial(STEP, utilization=0.9),
    partial(STEP, backlog_seconds=10),
    partial(STEP, backlog_seconds=120),
    partial(STEP, tokens_per_second=0.7 * FULL_TOKENS),
    partial(STEP, tokens_per_second=1.4 * FULL_TOKENS),
    partial(STEP, tokens_per_second=2.0 * FULL_TOKENS),
    partial(_scaled, "ramp"),
    partial(_scaled, "day in an hour"),
    partial(FROM_ZERO, start=10.0),
    partial(FROM_ZERO, start=45.0),
    partial(FROM_ZERO, start=120.0),
    partial(FROM_ZERO, start=45.0, backlog_seconds=5),
]
