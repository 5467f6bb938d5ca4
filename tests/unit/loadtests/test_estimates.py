"""Figures of runs whose truth is known, and the coverage of their confidence intervals."""

import math
import random

import numpy as np
import pytest

from tests.unit.loadtests.sample_run import interval, measured
from triptych.loadtests import estimates
from triptych.loadtests.confidence import Estimate, quotient, ratio
from triptych.loadtests.results import Measured, Process


def drawn(seed: int, count: int = 60, correlated: bool = False) -> Measured:
    """Log-normal latencies, 20 per second; `correlated`: seconds in a row are slow together."""
    draw = random.Random(seed)
    found, level = [], 0.0
    for _ in range(count):
        if correlated:
            level = 0.7 * level + draw.gauss(0, 0.2)
        found.append(interval([0.02 * math.exp(level + draw.gauss(0, 0.5)) for _ in range(20)]))
    return measured(found)


def percentile(one: Measured, share: float, flow: str | None = None) -> float:
    found = estimates.latency([one], share, flow)
    assert found is not None
    return found.value


def test_rates_leave_out_settling() -> None:
    its = [interval([0.1] * 5, items=10, tokens=100) for _ in range(10)]
    its[0] = interval([0.1] * 50, items=999, tokens=9999)
    one = measured(its, settle=0.5)
    assert estimates.rate([one], "done") == (5, 5, 5)
    assert estimates.rate([one], "sent").value == 5
    assert estimates.rate([one], "items").value == 10
    assert estimates.rate([one], "tokens").value == 100


def test_partial_intervals_do_not_count() -> None:
    its = [interval([9.0]), interval([0.1]), interval([0.1]), interval([9.0])]
    assert percentile(measured(its, settle=1.0, seconds=3.5), 1.0) == pytest.approx(0.1, rel=0.01)


def test_flows_count_alone_and_together() -> None:
    one = measured([interval([0.01] * 30)] * 4, slow=[interval([1.0] * 10, failures=1)] * 4)
    assert estimates.rate([one], "done", "query").value == 30
    assert estimates.rate([one], "done").value == 40
    assert percentile(one, 0.5) == pytest.approx(0.01, rel=0.01)
    assert percentile(one, 0.9) == pytest.approx(1.0, rel=0.01)
    alone, together = (estimates.failure_share([one], flow) for flow in ("query", None))
    assert alone
    assert together
    assert (alone.value, together.value) == (0, pytest.approx(1 / 41))
    assert estimates.latency([one], 0.5, "absent") is None


# Where one slow second makes the next ones slow too, a minute is short.
@pytest.mark.parametrize(("correlated", "least"), [(False, 0.93), (True, 0.88)])
def test_interval_of_percentile_covers_the_truth(correlated: bool, least: float) -> None:
    spread = math.hypot(0.5, 0.2 / math.sqrt(1 - 0.7**2)) if correlated else 0.5
    truth, held = 0.02 * math.exp(1.2816 * spread), 0
    for seed in range(100):
        found = estimates.latency([drawn(seed, correlated=correlated)], 0.9)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / 100 >= least


@pytest.mark.parametrize("count", [12, 40])
def test_interval_of_rate_covers_the_truth(count: int) -> None:
    held = 0
    for seed in range(200):
        draw = random.Random(seed)
        its = [interval(done=sum(draw.random() < 0.1 for _ in range(200)), sent=20) for _ in range(count)]
        found = estimates.rate([measured(its)], "done")
        held += found.low <= 20 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_few_intervals_use_independent_replies() -> None:
    found = estimates.latency([measured([interval([0.01 * number for number in range(1, 101)])])], 0.5)
    assert found is not None
    # The 41st and the 60th of a hundred.
    assert (found.low, found.high) == pytest.approx((0.41, 0.60), rel=0.03)
    rate = estimates.rate([measured([interval(done=100)])], "done")
    assert (rate.low, rate.high) == pytest.approx((80.4, 119.6))


def test_no_failure_of_few_requests_proves_little() -> None:
    few = estimates.failure_share([measured([interval([0.1] * 10)] * 3)])
    many = estimates.failure_share([measured([interval([0.1] * 1000)] * 30)])
    assert few
    assert many
    assert few.value == many.value == 0
    assert few.high > 0.1 > 0.001 > many.high
    assert estimates.failure_share([measured([interval(sent=0)])]) is None


@pytest.mark.parametrize(
    ("cpu", "late", "machine", "said"),
    [
        (0.95, 0.0, 1.0, "used 95% of a core"),
        (0.3, 0.03, 0.5, "30 ms late"),
        (0.3, 0.01, 0.5, ""),
        # Others fill the machine.
        (0.3, 0.03, 0.99, ""),
        (0.7, 0.03, 0.99, "late"),
    ],
)
def test_busy_or_late_harness_is_a_bottleneck(cpu: float, late: float, machine: float, said: str) -> None:
    one = measured([interval([0.1] * 20)] * 10)
    one.processes = [Process(name="p", cpu=cpu, late=late, machine_cpu=machine)]
    found = estimates.bottleneck([one])
    assert said in (found or "")
    assert bool(found) is bool(said)


def test_interval_of_ratio_covers_the_truth() -> None:
    draw, held = random.Random(5), 0
    for _ in range(400):
        one, other = (
            Estimate(value, value * math.exp(-1.96 * 0.1), value * math.exp(1.96 * 0.1))
            for value in (math.exp(draw.gauss(middle, 0.1)) for middle in (1.0, 0.0))
        )
        found = ratio(one, other)
        held += found.low <= math.e <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_bounds_of_ratio_are_not_symmetric_and_never_negative() -> None:
    above = ratio(Estimate(1.0, 1.0, 3.0), Estimate(2.0, 2.0, 2.0))
    assert above == pytest.approx((0.5, 0.5, 1.5))
    below = ratio(Estimate(2.0, 2.0, 2.0), Estimate(1.0, 1.0, 4.0))
    assert below == pytest.approx((2.0, 0.5, 2.0))
    assert ratio(Estimate(1.0, 0.0, 2.0), Estimate(1.0, 0.0, 2.0)) == (1.0, 0.0, math.inf)


def test_correlated_intervals_widen_the_bounds() -> None:
    alone = np.random.default_rng(1).normal(10, 1, 64)
    together, seconds = np.repeat(alone[::8], 8), np.ones(64)
    wide, narrow = quotient(together, seconds), quotient(alone, seconds)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
