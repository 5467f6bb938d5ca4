"""The experiments of docs/SCALE.md: each run gives one row of a table."""

import gc
import logging
from collections.abc import Iterator
from functools import partial
from itertools import product

from triptych.loadtests.bench.bench_report import number
from triptych.loadtests.simulate.profiles import GPU, NANO, SHORT, TEXTS, Setup
from triptych.loadtests.simulate.simulation import percentile, simulate, uncertainty

# A run lasts until about so many requests have come, but at least ten steps and at most a minute.
REQUESTS, QUICK_REQUESTS = 60_000, 10_000
LOADS, QUICK_LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1), (0.3, 0.7, 0.9, 1.1)
# With 1,000 replicas a simulated second takes minutes.
MANY, LOADS_OF_MANY = 1000, (0.5, 0.7, 0.9, 1.0)
# Routers by replicas for load 1.0: docs/SCALE.md, "Around the engines", says how many they need.
ROUTERS = {1: 1, 10: 1, 100: 7, MANY: 191}
STARTED = "All routers start together: the first 5 s"
EXPERIMENTS = {"load": "Load", "routers": "Routers and lanes", "started": STARTED}

cards = partial(Setup, profile=GPU, lengths=TEXTS)


def runs(name: str, quick: bool) -> Iterator[tuple[Setup, float]]:
    """The deployments of an experiment, each with a load."""
    loads = QUICK_LOADS if quick else LOADS
    if name == "load":
        for replicas, routers in ROUTERS.items():
            if not quick or replicas < MANY:
                setup = cards(replicas=replicas, routers=routers)
                yield from product([setup], LOADS_OF_MANY if replicas == MANY else loads)
        yield from product((Setup(profile=NANO, lengths=SHORT, replicas=count) for count in (1, 10)), loads)
    elif name == "routers":
        for lanes, routers in product((4,) if quick else (1, 2, 4), (1, 4, 16, 64)):
            yield from product([cards(replicas=100, routers=routers, lanes=lanes)], (0.5, 0.8))
    else:
        yield from ((cards(replicas=100, routers=routers), 0.5) for routers in (1, 16, 64))


def row(name: str, quick: bool, setup: Setup, load: float) -> dict[str, str]:
    """The result of one run, by column."""
    profile, rate = setup.profile, load * setup.capacity * setup.replicas
    full_step = profile.step(0, profile.step_tokens)
    seconds = min(60.0, max((QUICK_REQUESTS if quick else REQUESTS) / rate, 10 * full_step))
    warm_up = 5 * full_step if setup.replicas >= MANY else max(1.0, 5 * full_step)
    outcome = simulate(setup, load, *((5.0, 0.0) if name == "started" else (seconds, warm_up)))
    values = {
        "replicas": setup.replicas,
        "routers": setup.routers,
        "lanes": setup.lanes,
        "load": load,
        "requests/s": rate,
        "p50 ms": 1e3 * percentile(outcome.latency, 0.5),
        "p99 ms": 1e3 * percentile(outcome.latency, 0.99),
        "± ms": 1e3 * uncertainty(outcome.latency, 0.99),
        "% busy": 100 * outcome.busy,
        "requests": outcome.requests,
    }
    return {"engine": profile.name} | {column: number(value) for column, value in values.items()}


def set_up() -> None:
    """Prepare a process that simulates."""
    # Python's defaults spend half of a run on collecting young objects.
    gc.set_threshold(200_000, 20, 1000)
    # The router logs each replica that it finds slow, which happens by chance with this many.
    logging.getLogger("triptych.router").setLevel(logging.ERROR)
