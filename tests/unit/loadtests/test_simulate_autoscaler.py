"""Simulated autoscaling: the decision with Serve's delays, and replicas that start and drain."""

import pytest

pytest.importorskip("ray.serve")

from deploy.ray.book import RouterReport
from deploy.ray.config import Autoscaling
from deploy.ray.pressure import Pressure
from loadtests.simulate.autoscaler import Autoscaler
from loadtests.simulate.experiments import FULL_TOKENS
from loadtests.simulate.profiles import GPU, PAGES
from loadtests.simulate.router import POOL
from loadtests.simulate.system import Setup, Simulation


def told(
    autoscaler: Autoscaler,
    pressure: Pressure,
    seconds: int,
    target: int,
    per_second: float = 0.0,
    running: int | None = None,
) -> list[int]:
    """The target of each second while a router has `pressure`, and `per_second` tokens come to it.

    `running` replicas serve, or all of the target.
    """
    targets = []
    for now in range(seconds):
        for half in (now - 0.75, now - 0.25):
            arrived = {POOL: per_second * (half + 1)}
            autoscaler.report(RouterReport("a", "", "", pressures={POOL: pressure}, arrived=arrived), half)
        target = autoscaler.target(target, target if running is None else running, now)
        targets.append(target)
    return targets


def test_more_is_wanted_for_so_long_before_there_is_more() -> None:
    settings = Autoscaling(max=10, tokens_per_second=1000, utilization=1, backlog_seconds=10, up_seconds=10)
    targets = told(Autoscaler(settings), Pressure(waiting_tokens=35_000), 12, target=1)
    assert targets == [1] * 10 + [4] * 2


def test_less_waits_for_its_own_time_and_the_last_replica_for_another() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, down_seconds=20, to_zero_seconds=50)
    targets = told(Autoscaler(settings), Pressure(), 100, target=4)
    assert targets[:20] == [4] * 20
    assert targets[20] == 1
    assert targets[60:].count(0) > 20
    assert targets[69] == 1


def test_from_none_there_is_no_delay() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, up_seconds=30)
    assert told(Autoscaler(settings), Pressure(waiting_tokens=10), 1, target=0) == [1]


def test_while_none_runs_more_waits_as_usual_and_there_is_never_less() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, utilization=1, backlog_seconds=10)
    autoscaler = Autoscaler(settings)
    many = Pressure(waiting_tokens=35_000)
    assert told(autoscaler, many, 12, target=0, running=0) == [1] * 10 + [4] * 2
    assert told(autoscaler, Pressure(), 20, target=4, running=0) == [4] * 20


def test_as_long_as_no_router_says_anything_there_are_as_many_as_before() -> None:
    autoscaler = Autoscaler(Autoscaling(max=10, tokens_per_second=1000, down_seconds=0))
    assert autoscaler.target(5, 5, 0.0) == 5


def test_the_deployed_rule_counts_what_comes_and_waits_and_not_what_runs() -> None:
    settings = Autoscaling(max=10, tokens_per_second=1000, utilization=0.5, backlog_seconds=10, up_seconds=0)
    running = Pressure(running_tokens=9999)
    assert told(Autoscaler(settings), running, 60, 1, per_second=1200)[-1] == 3
    waiting = Pressure(waiting_tokens=5000)
    assert told(Autoscaler(settings), waiting, 60, 1, per_second=1200)[-1] == 4


def test_the_rule_to_compare_with_counts_what_is_there_and_not_what_comes() -> None:
    settings = Autoscaling(max=10, tokens_per_second=1, up_seconds=0)
    there = Pressure(waiting_tokens=1500, running_tokens=1000)
    assert told(Autoscaler(settings, tokens_held=1000), there, 60, 1, per_second=9999)[-1] == 3


def scaled(start_seconds: float, minimum: int, seconds: float = 200.0) -> Simulation:
    settings = Autoscaling(
        min=minimum, max=4, tokens_per_second=FULL_TOKENS, up_seconds=5, down_seconds=30, to_zero_seconds=30
    )
    setup = Setup(
        profile=GPU,
        lengths=PAGES,
        replicas=minimum,
        routers=2,
        autoscaling=settings,
        start_seconds=start_seconds,
    )
    peak = 2 * setup.capacity
    return Simulation(setup, lambda now: peak if 20 <= now < 60 else 0.0, peak, seconds)


@pytest.mark.parametrize("minimum", [0, 1])
def test_replicas_come_and_go_and_no_request_is_lost(minimum: int) -> None:
    simulation = scaled(10.0, minimum)
    outcome = simulation.run()
    assert outcome.served + outcome.refused + outcome.expired == outcome.requests > 1000
    serving = [sample.serving for sample in outcome.samples]
    assert serving[10] == minimum
    assert max(serving) == 4
    assert serving[-1] == minimum
    # Whoever is paid for serves, starts or drains.
    assert all(sample.held >= sample.serving for sample in outcome.samples)


def test_a_cold_start_takes_as_long_as_a_replica_does() -> None:
    outcome = scaled(10.0, 0).run()
    first = min(outcome.arrived_at)
    waited = outcome.latency[outcome.arrived_at.index(first)]
    assert 10.0 < waited < 12.5


def test_replicas_that_are_not_wanted_any_more_when_they_have_started_never_serve() -> None:
    settings = Autoscaling(min=1, max=4, tokens_per_second=FULL_TOKENS, up_seconds=0, down_seconds=10)
    setup = Setup(profile=GPU, lengths=PAGES, replicas=1, autoscaling=settings, start_seconds=40)
    peak = 3 * setup.capacity
    outcome = Simulation(setup, lambda now: peak if 5 <= now < 10 or now >= 70 else 1.0, peak, 130.0).run()
    before = outcome.samples[:70]
    assert max(sample.held for sample in before) == 4
    assert max(sample.serving for sample in before) == 1
    assert before[-1].held == 1
    assert outcome.samples[-1].serving >= 3


def test_slower_starts_make_more_requests_late() -> None:
    assert scaled(2.0, 1).run().late(1.0) < scaled(30.0, 1).run().late(1.0)


def test_a_jump_far_over_what_queues_hold_asks_for_all_that_it_needs() -> None:
    settings = Autoscaling(min=1, max=20, tokens_per_second=FULL_TOKENS, up_seconds=30)
    setup = Setup(profile=GPU, lengths=PAGES, replicas=1, routers=2, autoscaling=settings, start_seconds=60)
    peak = 7 * setup.capacity
    outcome = Simulation(setup, lambda now: peak, peak, 50.0).run()
    assert outcome.refused > outcome.requests / 4
    assert outcome.samples[-1].held >= 7 / settings.utilization
