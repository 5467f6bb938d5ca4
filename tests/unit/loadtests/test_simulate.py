"""The simulation, held against what is known without it: queueing theory, and its own books."""

import math
import random
from types import SimpleNamespace

import pytest

import loadtests.simulate.router as simulated
from deploy.ray.pressure import Pressure
from loadtests.simulate.engine import Engine
from loadtests.simulate.events import Events
from loadtests.simulate.experiments import CURVES
from loadtests.simulate.profiles import GPU, NANO, NANO_STEPS, PAGES, SHORT, TEXTS, Lengths, Noise, Profile
from loadtests.simulate.stats import percentile, uncertainty
from loadtests.simulate.system import Outcome, Setup, Simulation, steady
from router.pool.dispatcher import Dispatcher

SECONDS = 0.01
ONE = Lengths("one token", ((1.0, 1, 0.0),))


def single(noise: Noise, replicas: int = 1) -> Setup:
    """Servers as theory has them: one request at a time, nothing between it and the queue."""
    engine = Profile("theory", SECONDS, 0.0, 0.0, 0.0, noise)
    return Setup(profile=engine, lengths=ONE, replicas=replicas, lanes=1, batch_items=1)


def at_load(setup: Setup, load: float, seconds: float) -> Outcome:
    rate = load * setup.replicas / SECONDS
    return Simulation(setup, lambda now: rate, rate, seconds, 1.0).run()


def mean_wait(outcome: Outcome) -> float:
    return sum(outcome.waited) / len(outcome.waited)


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait with so many servers, each with `load`."""
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("noise", "spread"), [(Noise.EXPONENTIAL, 2.0), (Noise.NONE, 1.0)])
def test_one_replica_waits_as_theory_says(noise: Noise, spread: float) -> None:
    outcome = at_load(single(noise), 0.5, 240)
    # Pollaczek and Khinchine; E[S^2] is `spread` times the square of the mean service time. By the load that
    # there was: chance moves it a little, and the wait follows.
    expected = outcome.busy * spread * SECONDS / (2 * (1 - outcome.busy))
    assert mean_wait(outcome) == pytest.approx(expected, rel=0.03)


def test_many_replicas_with_one_queue_wait_as_theory_says() -> None:
    servers = 5
    outcome = at_load(single(Noise.EXPONENTIAL, servers), 0.75, 40)
    expected = erlang_c(servers, outcome.busy) * SECONDS / (servers * (1 - outcome.busy))
    assert mean_wait(outcome) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_below_capacity_engines_are_as_busy_as_the_load(load: float) -> None:
    assert at_load(single(Noise.EXPONENTIAL, 4), load, 20).busy == pytest.approx(load, rel=0.03)


def test_above_capacity_engines_are_busy_all_the_time_and_the_queue_grows() -> None:
    outcome = at_load(single(Noise.NONE), 1.2, 30)
    assert outcome.busy == pytest.approx(1.0, abs=0.01)
    assert outcome.waited[-1] > 10 * outcome.waited[50]


@pytest.mark.parametrize("load", [0.5, 3.0])
def test_every_request_ends_exactly_once(load: float) -> None:
    setup = Setup(profile=GPU, lengths=TEXTS, replicas=2, routers=3, bulk=0.3)
    outcome = steady(setup, load, 15.0, 0.0)
    assert outcome.requests > 1000
    assert outcome.served + outcome.refused + outcome.expired == outcome.requests
    assert outcome.bulk_served + len(outcome.latency) == outcome.served
    # Over capacity some could not be done in time, and are told so at once.
    assert (outcome.refused > 0) == (load > 1)


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    def numbers(seed: int) -> list[float]:
        return steady(Setup(profile=GPU, lengths=TEXTS, replicas=3, routers=2, seed=seed), 0.7, 3, 0).latency

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


@pytest.mark.parametrize("learned", [True, False])
def test_free_replicas_are_chosen_as_the_pool_would(monkeypatch: pytest.MonkeyPatch, learned: bool) -> None:
    routers: list[simulated.Router] = []
    calls, unknown = [], []
    share_of, first = simulated.share_of, simulated.Router._first

    def remembered(router: simulated.Router) -> simulated.Replica:
        routers[:] = [router]
        return first(router)

    def checked(waiting, replica, able, *, beside_queries):  # type: ignore[no-untyped-def]
        router = routers[0]
        now = router._events.now
        views = sorted(router.views.values(), key=router._places.__getitem__)
        free = [view for view in views if view.has_free_lane(now)]
        dispatcher = SimpleNamespace(ordinary=router._ordinary)
        assert replica is min(free, key=lambda view: Dispatcher._expected(dispatcher, view))  # type: ignore[arg-type]
        if router._ordinary.seconds_per_token and not replica.pace.seconds_per_token:
            unknown.append(replica)
        share = share_of(waiting, replica, free, beside_queries=beside_queries)
        assert share == share_of(waiting, replica, able, beside_queries=beside_queries)
        calls.append(share)
        return share

    monkeypatch.setattr(simulated, "share_of", checked)
    monkeypatch.setattr(simulated.Router, "_first", remembered)
    steady(Setup(profile=GPU, lengths=TEXTS, replicas=20, routers=2, learned=learned), 1.0, 2, 0)
    assert len(calls) > 500
    # That some are unknown while others are not.
    assert bool(unknown) is not learned


def test_each_router_begins_with_a_replica_of_its_own() -> None:
    setup = Setup(profile=GPU, lengths=TEXTS, replicas=100, routers=16, learned=False)
    simulation = Simulation(setup, lambda now: 0.0, 1.0, 1.0)
    assert len({router._engines[router._first()] for router in simulation._routers}) > 10


def test_a_router_reports_all_that_was_asked_for_and_takes_nothing_back() -> None:
    events, ended = Events(), []
    router = simulated.Router("a", events, GPU, 1, 256, ended.append)

    def arrived() -> float:
        return router.report().arrived[simulated.POOL]

    most = simulated.default("queue_tokens")
    router.arrive(most, False, 60.0)
    router.arrive(100, False, 60.0)
    assert len(ended) == 1, "the second is refused"
    assert arrived() == most + 100
    # Nor does it matter whether the first is too late, or is served.
    events.run(until=61.0)
    router.add(Engine(events, GPU, random.Random(1)))
    assert (len(ended), router.queue.tokens) == (2, 0)
    assert arrived() == most + 100
    router.arrive(10, False, 60.0)
    events.run()
    assert (len(ended), router.pressure) == (3, Pressure())
    assert arrived() == most + 110


def test_events_come_in_order_and_never_in_the_past() -> None:
    events, seen = Events(), []
    for when in (2.0, 1.0, 2.0):
        events.at(when, seen.append, (when, len(seen)))
    events.run(until=1.5)
    assert (seen, events.now) == ([(1.0, 0)], 1.5)
    with pytest.raises(ValueError, match="is over"):
        events.at(1.0, seen.append, 0)
    events.run()
    assert len(seen) == 3


def test_the_nano_engine_is_within_a_seventh_of_what_was_measured() -> None:
    for items, each, milliseconds in NANO_STEPS:
        step = NANO.seconds + items * (NANO.seconds_per_item + each * NANO.seconds_per_token)
        assert 1000 * step == pytest.approx(milliseconds, rel=1 / 7)


@pytest.mark.parametrize("noise", Noise)
def test_noise_leaves_the_mean_as_it_is(noise: Noise) -> None:
    engine, draw = Profile("noisy", 1.0, 0.0, 0.0, 0.0, noise, sigma=0.5), random.Random(1)
    assert sum(engine.step(1, 1, draw) for _ in range(20_000)) / 20_000 == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("lengths", [SHORT, TEXTS, PAGES])
def test_lengths_have_their_mean(lengths: Lengths) -> None:
    draw = random.Random(1)
    drawn = [lengths.draw(draw) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(lengths.mean, rel=0.03)
    assert max(drawn) <= lengths.longest


@pytest.mark.parametrize("curve", CURVES)
def test_no_curve_asks_for_more_than_its_peak(curve: str) -> None:
    shape, peak, seconds = CURVES[curve]
    asked = [shape(float(second)) for second in range(int(seconds))]
    assert max(asked) == pytest.approx(peak, rel=1e-3)
    assert max(asked) <= peak


def test_percentiles_and_how_far_off_they_may_be() -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 0.5) == 5
    assert math.isnan(percentile([], 0.5))
    draw = random.Random(1)
    few, many = ([draw.random() for _ in range(count)] for count in (1000, 100_000))
    assert uncertainty(many, 0.9) < uncertainty(few, 0.9) < 0.05
    assert abs(percentile(many, 0.9) - 0.9) < 2 * uncertainty(many, 0.9)
