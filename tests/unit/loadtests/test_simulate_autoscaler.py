"""Simulated autoscaling: the decision with Serve's delays, and replicas that start and stop."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("ray.serve")

from triptych.deploy.ray.book import RouterReport
from triptych.deploy.ray.config import Autoscaling
from triptych.deploy.ray.pressure import Pressure
from triptych.loadtests.simulate.autoscaler import Autoscaler
from triptych.loadtests.simulate.experiments import FULL_TOKENS
from triptych.loadtests.simulate.profiles import GPU, PAGES, Setup
from triptych.loadtests.simulate.simulated_router import POOL
from triptych.loadtests.simulate.simulation import Outcome, Simulation

DEFAULTS: dict[str, Any] = {"max": 10, "tokens_per_second": 1000, "utilization": 1, "backlog_seconds": 10}
MANY = Pressure(waiting_tokens=35_000)


def told(
    autoscaler: Autoscaler, pressure: Pressure, seconds: int, target: int, running: int | None = None
) -> list[int]:
    """The target of each second under `pressure`. `running` replicas serve, by default all of the target."""
    targets = []
    for now in range(seconds):
        for half in (now - 0.75, now - 0.25):
            autoscaler.report(RouterReport("a", "", "", pressures={POOL: pressure}, arrived={POOL: 0}), half)
        target = autoscaler.target(target, target if running is None else running, now)
        targets.append(target)
    return targets


def test_scaling_up_waits_for_its_delay() -> None:
    settings = Autoscaling(**DEFAULTS, up_seconds=10)
    assert told(Autoscaler(settings), MANY, 12, target=1) == [1] * 10 + [4] * 2


def test_scaling_down_and_to_zero_have_own_delays() -> None:
    settings = Autoscaling(**DEFAULTS, min=0, down_seconds=20, to_zero_seconds=50)
    targets = told(Autoscaler(settings), Pressure(), 100, target=4)
    assert targets[:21] == [4] * 20 + [1]
    assert targets[69] == 1
    assert targets[-1] == 0


def scaled(
    load: Callable[[float], float],
    peak: float,
    seconds: float,
    start_seconds: float,
    min: int = 1,
    max: int = 4,
    **delays: float,
) -> Outcome:
    """A run with `load` in full replicas."""
    autoscaling = Autoscaling(min=min, max=max, tokens_per_second=FULL_TOKENS, **delays)
    setup = Setup(
        profile=GPU,
        lengths=PAGES,
        replicas=min,
        routers=2,
        autoscaling=autoscaling,
        start_seconds=start_seconds,
    )
    rate = setup.capacity
    return Simulation(setup, lambda now: rate * load(now), rate * peak, seconds).run()


def jump(start_seconds: float, min: int) -> Outcome:
    delays = {"up_seconds": 5.0, "down_seconds": 30.0, "to_zero_seconds": 30.0}
    return scaled(lambda now: 2.0 * (20 <= now < 60), 2.0, 200.0, start_seconds, min, **delays)


@pytest.mark.parametrize("min", [0, 1])
def test_no_request_is_lost_while_scaling(min: int) -> None:
    outcome = jump(10.0, min)
    assert len(outcome.latency) + outcome.refused + outcome.expired == outcome.requests > 1000
    serving = [sample.serving for sample in outcome.samples]
    assert (serving[10], max(serving), serving[-1]) == (min, 4, min)
    assert all(sample.held >= sample.serving for sample in outcome.samples)
    # From zero, the first request waits for a replica.
    assert 10.0 * (min == 0) < outcome.latency[0] < 10.0 * (min == 0) + 2.5
