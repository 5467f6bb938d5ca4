"""Simulated autoscaling: the decision with Serve's delays, and replicas that start and drain."""

import pytest

pytest.importorskip("ray.serve")

from deploy.ray.book import RouterReport
from deploy.ray.config import Autoscaling
from deploy.ray.pressure import Pressure
from loadtests.simulate.autoscaler import Autoscaler
from loadtests.simulate.experiments import FULL_TOKENS
from loadtests.simulate.profiles import GPU, PAGES
from loadtests.simulate.simulated_router import POOL
from loadtests.simulate.simulation import Setup, Simulation


def told(
    autoscaler: Autoscaler,
    pressure: Pressure,
    seconds: int,
    target: int,
    per_second: float = 0.0,
    running: int | None = None,
) -> list[int]:
    """The target of each second while a router reports `pressure` and `per_second` arriving tokens.

    `running` replicas serve, by default all of the target.
    """
    targets = []
    for now in range(seconds):
        for half in (now - 0.75, now - 0.25):
            arrived = {POOL: per_second * (half + 1)}
            autoscaler.report(RouterReport("a", "", "", pressures={POOL: pressure}, arrived=arrived), half)
        target = autoscaler.target(target, target if running is None else running, now)
        targets.append(target)
    return targets


def test_scaling_up_waits_for_its_delay() -> None:
    settings = Autoscaling(max=10, tokens_per_second=1000, utilization=1, backlog_seconds=10, up_seconds=10)
    targets = told(Autoscaler(settings), Pressure(waiting_tokens=35_000), 12, target=1)
    assert targets == [1] * 10 + [4] * 2


def test_scaling_down_and_to_zero_have_own_delays() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, down_seconds=20, to_zero_seconds=50)
    targets = told(Autoscaler(settings), Pressure(), 100, target=4)
    assert targets[:20] == [4] * 20
    assert targets[20] == 1
    assert targets[60:].count(0) > 20
    assert targets[69] == 1


def test_scaling_from_zero_has_no_delay() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, up_seconds=30)
    assert told(Autoscaler(settings), Pressure(waiting_tokens=10), 1, target=0) == [1]


def test_starting_pool_grows_and_never_shrinks() -> None:
    settings = Autoscaling(min=0, max=10, tokens_per_second=1000, utilization=1, backlog_seconds=10)
    autoscaler = Autoscaler(settings)
    many = Pressure(waiting_tokens=35_000)
    assert told(autoscaler, many, 12, target=0, running=0) == [1] * 10 + [4] * 2
    assert told(autoscaler, Pressure(), 20, target=4, running=0) == [4] * 20


def test_target_stays_without_reports() -> None:
    autoscaler = Autoscaler(Autoscaling(max=10, tokens_per_second=1000, down_seconds=0))
    assert autoscaler.target(5, 5, 0.0) == 5


def test_demand_is_arrivals_and_backlog() -> None:
    settings = Autoscaling(max=10, tokens_per_second=1000, utilization=0.5, backlog_seconds=10, up_seconds=0)
    running = Pressure(running_tokens=9999)
    assert told(Autoscaler(settings), running, 60, 1, per_second=1200)[-1] == 3
    waiting = Pressure(waiting_tokens=5000)
    assert told(Autoscaler(settings), waiting, 60, 1, per_second=1200)[-1] == 4


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
def test_no_request_is_lost_while_scaling(minimum: int) -> None:
    simulation = scaled(10.0, minimum)
    outcome = simulation.run()
    assert len(outcome.latency) + outcome.refused + outcome.expired == outcome.requests > 1000
    serving = [sample.serving for sample in outcome.samples]
    assert serving[10] == minimum
    assert max(serving) == 4
    assert serving[-1] == minimum
    assert all(sample.held >= sample.serving for sample in outcome.samples)


def test_cold_start_waits_for_the_replica() -> None:
    outcome = scaled(10.0, 0).run()
    assert 10.0 < outcome.latency[0] < 12.5


def test_cancelled_starts_never_serve() -> None:
    settings = Autoscaling(min=1, max=4, tokens_per_second=FULL_TOKENS, up_seconds=0, down_seconds=10)
    setup = Setup(profile=GPU, lengths=PAGES, replicas=1, autoscaling=settings, start_seconds=40)
    peak = 3 * setup.capacity
    outcome = Simulation(setup, lambda now: peak if 5 <= now < 10 or now >= 70 else 1.0, peak, 130.0).run()
    before = outcome.samples[:70]
    assert max(sample.held for sample in before) == 4
    assert max(sample.serving for sample in before) == 1
    assert before[-1].held == 1
    assert outcome.samples[-1].serving >= 3


def test_slower_starts_make_more_late() -> None:
    assert scaled(2.0, 1).run().late(1.0) < scaled(30.0, 1).run().late(1.0)


def test_jump_beyond_the_queues_asks_for_enough() -> None:
    settings = Autoscaling(min=1, max=20, tokens_per_second=FULL_TOKENS, up_seconds=30)
    setup = Setup(profile=GPU, lengths=PAGES, replicas=1, routers=2, autoscaling=settings, start_seconds=60)
    peak = 7 * setup.capacity
    outcome = Simulation(setup, lambda now: peak, peak, 50.0).run()
    assert outcome.refused > outcome.requests / 4
    assert outcome.samples[-1].held >= 7 / settings.utilization
