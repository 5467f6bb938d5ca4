"""The experiments, each a list of runs that may be done one after another."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean

from deploy.ray.config import Autoscaling
from loadtests.simulate.control import needs
from loadtests.simulate.profiles import GPU, NANO, PAGES, SHORT, TEXTS, Profile
from loadtests.simulate.results import Cost, Held, Moment, Results, Scaled, Steady
from loadtests.simulate.router_cost import seconds_per_request
from loadtests.simulate.stats import percentile
from loadtests.simulate.system import Outcome, Setup, Simulation

SLO_SECONDS = 1.0
# Runs are as long as gives about so many requests, but at least some steps' time and at most a minute.
REQUESTS, QUICK_REQUESTS = 60_000, 10_000
LOADS_OF_MANY = (0.3, 0.5, 0.7, 0.9, 1.0)
# A day of 24 hours passes in one: its slopes are 24 times as steep, while delays and starts stay as they are.
DAY_SECONDS = 3600.0
MOMENT_SECONDS = 10
# Tokens of pages that a replica does in a second with full steps: what a measurement of it would give.
FULL_TOKENS = GPU.capacity(PAGES.mean) * PAGES.mean
DEPLOYED, TOKENS_HELD = "deployed", "by tokens waiting and running"

Run = Callable[[], None]


def runs(results: Results, seed: int, quick: bool, only: set[str]) -> Iterator[tuple[str, Run]]:
    """Name and action of every run; each adds what it finds to `results`."""
    parts: dict[str, Callable[[Results, int, bool], Iterator[tuple[str, Run]]]] = {
        "load": _loads,
        "routers": _routers,
        "scaling": _scaling,
        "control": _control,
    }
    for name, part in parts.items():
        if not only or name in only:
            yield from part(results, seed, quick)


def _loads(results: Results, seed: int, quick: bool) -> Iterator[tuple[str, Run]]:
    loads = (0.3, 0.7, 0.9, 1.1) if quick else (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1)
    for replicas in (1, 10, 100) if quick else (1, 10, 100, 1000):
        rate = replicas * GPU.capacity(TEXTS.mean)
        setup = Setup(
            profile=GPU, lengths=TEXTS, replicas=replicas, routers=needs(replicas, rate).routers, seed=seed
        )
        # A second of 1,000 replicas takes many; beyond capacity they do as 100 do.
        yield from _each(setup, loads if replicas < 1000 else LOADS_OF_MANY, quick, results.load)
    for replicas in (1, 10):
        setup = Setup(profile=NANO, lengths=SHORT, replicas=replicas, seed=seed)
        yield from _each(setup, loads, quick, results.load)


def _routers(results: Results, seed: int, quick: bool) -> Iterator[tuple[str, Run]]:
    for lanes in (4,) if quick else (1, 2, 4):
        for routers in (1, 4, 16, 64):
            setup = Setup(profile=GPU, lengths=TEXTS, replicas=100, routers=routers, lanes=lanes, seed=seed)
            yield from _each(setup, (0.5, 0.8), quick, results.routers)
    for routers in (1, 16, 64):
        setup = Setup(profile=GPU, lengths=TEXTS, replicas=100, routers=routers, seed=seed, learned=False)
        yield from _each(setup, (0.5,), quick, results.started, warm_up=0.0)


def _each(
    setup: Setup, loads: tuple[float, ...], quick: bool, to: list[Steady], warm_up: float | None = None
) -> Iterator[tuple[str, Run]]:
    for load in loads:

        def run(load: float = load) -> None:
            to.append(_steady(setup, load, quick, warm_up))

        yield f"{setup.replicas} replicas, {setup.routers} routers, load {load:g}", run


def _steady(setup: Setup, load: float, quick: bool, warm_up: float | None) -> Steady:
    rate = load * setup.capacity * setup.replicas
    full_step = _full_step(setup.profile)
    seconds = min(60.0, max((QUICK_REQUESTS if quick else REQUESTS) / rate, 10 * full_step))
    before = max(1.0, 5 * full_step) if warm_up is None else warm_up
    if setup.replicas >= 1000 and warm_up is None:
        before = 5 * full_step
    if warm_up is not None:
        seconds = 5.0
    outcome = Simulation(setup, lambda now: rate, rate, before + seconds, before).run()
    return Steady(
        engine=setup.profile.name,
        inputs=setup.lengths.name,
        replicas=setup.replicas,
        routers=setup.routers,
        lanes=setup.lanes,
        learned=setup.learned,
        load=load,
        rate=rate,
        simulated_seconds=seconds,
        requests=outcome.requests,
        served=outcome.served,
        refused=outcome.refused,
        p50=outcome.percentile(0.5),
        p99=outcome.percentile(0.99),
        p99_error=outcome.uncertainty(0.99),
        busy=outcome.busy,
        items_per_batch=outcome.items_per_batch,
    )


def _full_step(profile: Profile) -> float:
    return profile.seconds + profile.seconds_per_token * profile.step_tokens


# Replicas' worth of load over time.
def _step(now: float) -> float:
    return 7.0 if 60 <= now < 480 else 1.4


def _ramp(now: float) -> float:
    return 1.0 + 7.0 * min(1.0, now / 600)


def _day(now: float) -> float:
    return 1.0 + 7.0 * math.sin(math.pi * now / DAY_SECONDS) ** 2


def _bursts(now: float) -> float:
    """Nothing, but for two minutes in every ten."""
    return 1.0 if 300 <= now % 600 < 420 else 1e-9


CURVES: dict[str, tuple[Callable[[float], float], float, float]] = {
    "step": (_step, 7.0, 900.0),
    "ramp": (_ramp, 8.0, 900.0),
    "day in an hour": (_day, 8.0, DAY_SECONDS),
    "bursts": (_bursts, 1.0, 1200.0),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A run with autoscaling: what is not as in the others, and its name."""

    curve: str
    name: str = ""
    settings: dict[str, float] = field(default_factory=dict)
    start: float = 60.0
    tokens_held: float | None = None


FROM_ZERO: dict[str, float] = {"min": 0, "to_zero_seconds": 60}
QUICK_CHANGES = [Change("step"), Change("step", "8,192 each", tokens_held=8192)]
CHANGES = [
    Change("step"),
    *(Change("step", f"start {start:g} s", start=start) for start in (10.0, 180.0)),
    *(
        Change("step", f"{name} {value:g}", {name: value})
        for name, values in {
            "up_seconds": (0, 30),
            "down_seconds": (60,),
            "utilization": (0.5, 0.9),
            "backlog_seconds": (10, 120),
        }.items()
        for value in values
    ),
    *(
        Change(
            "step",
            f"tokens_per_second {part:g} times the true one",
            {"tokens_per_second": part * FULL_TOKENS},
        )
        for part in (0.7, 1.4, 2.0)
    ),
    *(Change("step", f"{tokens:,} each", tokens_held=tokens) for tokens in (8192, 2048)),
    *(
        Change(curve, name, tokens_held=tokens)
        for curve in ("ramp", "day in an hour")
        for name, tokens in (("", None), ("8,192 each", 8192))
    ),
    *(Change("bursts", f"min 0, start {start:g} s", FROM_ZERO, start) for start in (10.0, 45.0, 120.0)),
    Change("bursts", "min 0, start 45 s, backlog_seconds 5", FROM_ZERO | {"backlog_seconds": 5}, 45.0),
]


def _scaling(results: Results, seed: int, quick: bool) -> Iterator[tuple[str, Run]]:
    # What a replica has at a load: the autoscaler may change nothing here.
    for load in (0.3, 0.6, 0.9) if quick else (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):

        def hold(load: float = load) -> None:
            results.held.append(_held(load, seed, 10.0 if quick else 30.0))

        yield f"held at load {load:g}", hold
    for change in QUICK_CHANGES if quick else CHANGES:

        def run(change: Change = change) -> None:
            results.scaled.append(_scaled(change, seed))

        yield f"{change.curve}, {change.name or DEPLOYED}", run


def _held(load: float, seed: int, seconds: float) -> Held:
    replicas = 8
    setup = Setup(
        profile=GPU,
        lengths=PAGES,
        replicas=replicas,
        routers=4,
        autoscaling=Autoscaling(min=replicas, max=replicas, tokens_per_second=FULL_TOKENS),
        seed=seed,
    )
    rate = load * setup.capacity * replicas
    outcome = Simulation(setup, lambda now: rate, rate, 5 + seconds, 5).run()
    return Held(load, fmean(sample.tokens for sample in outcome.samples) / replicas, outcome.percentile(0.99))


def _scaled(change: Change, seed: int) -> Scaled:
    shape, peak, seconds = CURVES[change.curve]
    autoscaling = Autoscaling(**{"min": 1, "max": 20, "tokens_per_second": FULL_TOKENS} | change.settings)
    setup = Setup(
        profile=GPU,
        lengths=PAGES,
        replicas=0 if autoscaling.min == 0 else 2,
        routers=4,
        autoscaling=autoscaling,
        tokens_held=change.tokens_held,
        start_seconds=change.start,
        seed=seed,
    )
    capacity = setup.capacity
    outcome = Simulation(setup, lambda now: capacity * shape(now), capacity * peak, seconds).run()
    return Scaled(
        curve=change.curve,
        rule=DEPLOYED if change.tokens_held is None else TOKENS_HELD,
        changed=change.name,
        settings=autoscaling.model_dump(),
        tokens_held=change.tokens_held,
        start_seconds=change.start,
        requests=outcome.requests,
        served=outcome.served,
        refused=outcome.refused,
        expired=outcome.expired,
        p50=outcome.percentile(0.5),
        p99=outcome.percentile(0.99),
        late=outcome.late(SLO_SECONDS),
        most_replicas=max(sample.held for sample in outcome.samples),
        replica_hours=outcome.replica_seconds / 3600,
        full_hours=sum(shape(float(second)) for second in range(int(seconds))) / 3600,
        moments=_moments(outcome, capacity),
    )


def _moments(outcome: Outcome, capacity: float) -> list[Moment]:
    latencies: dict[int, list[float]] = {}
    for arrived, latency in zip(outcome.arrived_at, outcome.latency, strict=True):
        latencies.setdefault(int(arrived // MOMENT_SECONDS), []).append(latency)
    lost: dict[int, int] = {}
    for arrived in outcome.refused_at:
        lost[int(arrived // MOMENT_SECONDS)] = lost.get(int(arrived // MOMENT_SECONDS), 0) + 1
    moments = []
    for index in range(len(outcome.samples) // MOMENT_SECONDS):
        samples = outcome.samples[index * MOMENT_SECONDS : (index + 1) * MOMENT_SECONDS]
        served, refused = latencies.get(index, []), lost.get(index, 0)
        slow = sum(latency > SLO_SECONDS for latency in served)
        moments.append(
            Moment(
                at=samples[0].at,
                asked=fmean(sample.rate for sample in samples) / capacity,
                serving=fmean(sample.serving for sample in samples),
                held=fmean(sample.held for sample in samples),
                p99=percentile(served, 0.99) if served else 0.0,
                late=(slow + refused) / (len(served) + refused) if served or refused else 0.0,
            )
        )
    return moments


def _control(results: Results, seed: int, quick: bool) -> Iterator[tuple[str, Run]]:
    for replicas in (1, 10, 100, 1000):

        def measure(replicas: int = replicas) -> None:
            results.cost.append(Cost(replicas, seconds_per_request(replicas, 50 if quick else 200)))

        yield f"cost of a request with {replicas} replicas", measure

    def count() -> None:
        for replicas in (10, 100, 300, 1000):
            rate = replicas * 0.85 * GPU.capacity(TEXTS.mean)
            results.control.append(needs(replicas, rate))

    yield "control plane", count
