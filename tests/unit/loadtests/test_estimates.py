"""Figures and their confidence intervals: right for runs whose truth is known, and honest about chance."""

import math
import random
from collections.abc import Sequence

import pytest

from loadtests import confidence, estimates
from loadtests.histogram import bucket, seconds_of
from loadtests.results import Interval, Measured, Process, Segment
from tests.unit.loadtests import sample_run

TRUTH_P90 = math.exp(1.2816 * 0.5) * 0.02


def measured(
    intervals: Sequence[Interval],
    *,
    settle: float = 0.0,
    seconds: float | None = None,
    **flows: Sequence[Interval],
) -> Measured:
    named = {"query": list(intervals)} | {name: list(its) for name, its in flows.items()}
    segment = Segment(name="x", seconds=seconds or float(len(intervals)), settle=settle, rate=(10, 10))
    return Measured(segment=segment, began=0.0, interval=1.0, intervals=named, processes=[])


def interval(
    times: Sequence[float] = (), *, sent: int | None = None, failures: int = 0, **counts: int
) -> Interval:
    buckets: dict[int, int] = {}
    for time in times:
        buckets[bucket(time)] = buckets.get(bucket(time), 0) + 1
    return Interval(
        sent=len(times) + failures if sent is None else sent,
        done=counts.pop("done", len(times)),
        failures={"HTTP 503": failures} if failures else {},
        clocks={"total": buckets} if buckets else {},
        **counts,
    )


def drawn(seed: int, count: int = 60, correlated: bool = False) -> Measured:
    """Log-normal latencies, 20 a second; `correlated`: seconds in a row are slow together."""
    draw = random.Random(seed)
    found, level = [], 0.0
    for _ in range(count):
        if correlated:
            level = 0.7 * level + draw.gauss(0, 0.2)
        found.append(interval([0.02 * math.exp(level + draw.gauss(0, 0.5)) for _ in range(20)]))
    return measured(found)


def test_rates_are_over_the_time_that_counts() -> None:
    its = [interval([0.1] * 5, items=10, tokens=100) for _ in range(10)]
    its[0] = interval([0.1] * 50, items=999, tokens=9999)
    one = measured(its, settle=0.5)
    assert estimates.throughput([one]) == (5, 5, 5)
    assert estimates.offered([one]).value == 5
    assert estimates.items_per_second([one]).value == 10
    assert estimates.tokens_per_second([one]).value == 100


def test_what_settles_and_a_last_piece_of_an_interval_do_not_count() -> None:
    its = [interval([9.0]), interval([0.1]), interval([0.1]), interval([9.0])]
    one = measured(its, settle=1.0, seconds=3.5)
    found = estimates.latency([one], 1.0)
    assert found is not None
    assert found.value == pytest.approx(0.1, rel=0.01)


def test_flows_stand_alone_and_together() -> None:
    one = measured([interval([0.01] * 30)] * 4, slow=[interval([1.0] * 10, failures=1)] * 4)
    assert estimates.throughput([one], "query").value == 30
    assert estimates.throughput([one]).value == 40
    assert estimates.latency([one], 0.5).value == pytest.approx(0.01, rel=0.01)  # type: ignore[union-attr]
    assert estimates.latency([one], 0.9).value == pytest.approx(1.0, rel=0.01)  # type: ignore[union-attr]
    assert estimates.failure_share([one], "query").value == 0
    assert estimates.failure_share([one]).value == pytest.approx(1 / 41)
    assert estimates.failures([one]) == {"HTTP 503": 4}
    assert estimates.latency([one], 0.5, "absent") is None


def test_several_of_a_kind_are_pooled() -> None:
    slow, fast = measured([interval([1.0] * 10)] * 5), measured([interval([0.1] * 90)] * 5)
    assert estimates.throughput([slow, fast]).value == 50
    assert estimates.latency([slow, fast], 0.9).value == pytest.approx(0.1, rel=0.01)  # type: ignore[union-attr]
    assert estimates.latency([slow, fast], 0.91).value == pytest.approx(1.0, rel=0.01)  # type: ignore[union-attr]


@pytest.mark.parametrize("correlated", [False, True])
def test_the_interval_of_a_percentile_holds_the_truth_as_often_as_it_says(correlated: bool) -> None:
    if correlated:
        # The spread of the level, which adds to that within a second.
        spread = math.hypot(0.5, 0.2 / math.sqrt(1 - 0.7**2))
        truth = 0.02 * math.exp(1.2816 * spread)
    else:
        truth = TRUTH_P90
    held = 0
    for seed in range(200):
        found = estimates.latency([drawn(seed, correlated=correlated)], 0.9)
        assert found is not None
        held += found.low <= truth <= found.high
    # Where a slow second makes the next three slow too, a minute is little.
    assert (0.88 if correlated else 0.93) <= held / 200 <= 1.0


def test_seconds_that_are_slow_together_make_the_interval_wider() -> None:
    def width(correlated: bool) -> float:
        found = [estimates.latency([drawn(seed, correlated=correlated)], 0.9) for seed in range(20)]
        return sum(math.log(its.high / its.low) for its in found if its)

    assert width(True) > 1.4 * width(False)


@pytest.mark.parametrize("count", [12, 40])
def test_the_interval_of_a_rate_holds_the_truth_as_often_as_it_says(count: int) -> None:
    held = 0
    for seed in range(200):
        draw = random.Random(seed)
        its = [interval(done=sum(draw.random() < 0.1 for _ in range(200)), sent=20) for _ in range(count)]
        found = estimates.throughput([measured(its)])
        held += found.low <= 20 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_run_gives_the_same_figures() -> None:
    one = estimates.latency([drawn(7)], 0.99)
    # As another process would find it.
    confidence._times_drawn.cache_clear()
    assert estimates.latency([drawn(7)], 0.99) == one


def test_few_intervals_give_what_independent_replies_would() -> None:
    its = [interval([0.01 * number for number in range(1, 101)])]
    found = estimates.latency([measured(its)], 0.5)
    assert found is not None
    # The 41st and the 60th of a hundred.
    assert found.low == pytest.approx(0.41, rel=0.03)
    assert found.high == pytest.approx(0.60, rel=0.03)
    rate = estimates.throughput([measured([interval(done=100)])])
    assert (rate.low, rate.high) == pytest.approx((80.4, 119.6))


def test_inputs_of_one_request_are_no_more_certain_than_the_request() -> None:
    few = [measured([interval(done=25, items=400, tokens=8000)] * 4)]
    requests, items, tokens = (
        figure(few)
        for figure in (estimates.throughput, estimates.items_per_second, estimates.tokens_per_second)
    )
    assert items.low / items.value == tokens.low / tokens.value == requests.low / requests.value


def test_what_is_answered_of_what_is_sent_is_surer_than_either() -> None:
    draw = random.Random(3)
    its = [interval(done=count, sent=count + 1) for count in (draw.randint(10, 60) for _ in range(30))]
    share, rate = estimates.answered_share([measured(its)]), estimates.throughput([measured(its)])
    assert share is not None
    assert share.high - share.low < 0.2 * (rate.high - rate.low) / rate.value
    assert estimates.answered_share([measured([interval()])]) is None


def test_no_failure_among_few_may_still_be_some_among_many() -> None:
    few = estimates.failure_share([measured([interval([0.1] * 10)] * 3)])
    many = estimates.failure_share([measured([interval([0.1] * 1000)] * 30)])
    assert few.value == many.value == 0
    assert few.high > 0.1 > 0.001 > many.high
    assert estimates.failure_share([measured([interval(sent=0)])]) == (0, 0, 1)


def test_wrong_replies_are_counted_apart() -> None:
    its = Interval(sent=10, failures={"wrong: order": 2, "HTTP 503": 3})
    assert estimates.wrong([measured([its])]) == 2


def test_rows_are_one_for_each_flow_and_one_for_all() -> None:
    run = sample_run.build([sample_run.constant()])
    rows = estimates.rows(run)
    flows = list(run.segments[0].intervals)
    assert [row.flow for row in rows] == (["", *flows] if len(flows) > 1 else flows)
    assert all(row.p50 and row.p99 and row.p50.value <= row.p99.value for row in rows)


def test_a_p999_needs_a_thousand_replies() -> None:
    run = sample_run.build([sample_run.constant()])
    run.segments = [measured([interval([0.1] * 999)])]
    assert estimates.rows(run)[0].p999 is None
    run.segments = [measured([interval([0.1] * 1000)])]
    assert estimates.rows(run)[0].p999 is not None


@pytest.mark.parametrize(
    ("process", "machine", "said"),
    [
        (Process(name="p", cpu=0.95, lag=0.0, late=0.0), 1.0, "used 95% of a core"),
        (Process(name="p", cpu=0.3, lag=0.0, late=0.03), 0.5, "sent 30 ms late"),
        (Process(name="p", cpu=0.3, lag=0.03, late=0.0), 0.5, "ran 30 ms late"),
        (Process(name="p", cpu=0.3, lag=0.01, late=0.01), 0.5, None),
        # Late on a machine that others fill, as where harness and server share it.
        (Process(name="p", cpu=0.3, lag=0.03, late=0.03), 0.99, None),
        (Process(name="p", cpu=0.7, lag=0.03, late=0.03), 0.99, "late"),
        (Process(name="p", cpu=0.3, lag=0.03, late=0.03), None, "late"),
    ],
)
def test_the_harness_is_the_bottleneck_when_it_is_busy_or_late(
    process: Process, machine: float | None, said: str | None
) -> None:
    one = measured([interval([0.1] * 20)] * 10)
    one.processes, one.machine_cpu = [process], machine
    found = estimates.bottleneck([one])
    assert found is None if said is None else found is not None and said in found


def test_late_by_less_than_a_fifth_of_the_latency_is_not_late() -> None:
    one = measured([interval([1.0] * 20)] * 10)
    one.processes = [Process(name="p", cpu=0.1, lag=0.1, late=0.1)]
    assert estimates.bottleneck([one]) is None


def test_a_full_machine_is_said_with_how_late_it_made_the_harness() -> None:
    one = measured([interval([0.1] * 20)] * 10)
    one.processes, one.machine_cpu = [Process(name="p", cpu=0.3, lag=0.01, late=0.04)], 0.99
    assert "40 ms" in (estimates.crowded([one]) or "")
    one.machine_cpu = 0.6
    assert estimates.crowded([one]) is None


def test_buckets_are_as_fine_as_the_tests_take_them_to_be() -> None:
    assert seconds_of(bucket(0.02)) == pytest.approx(0.02, rel=0.01)
