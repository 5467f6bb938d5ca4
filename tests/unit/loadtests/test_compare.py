"""Comparison: finds differences that are there, and claims none that are not."""

import random

import pytest

from tests.unit.loadtests.sample_run import interval, measured, run_of
from triptych.loadtests.compare import compare, render
from triptych.loadtests.results import Capacity, Interval, Limit, Process, Run

SAME = "no clear difference"


def run(seed: int, slower: float = 1.0, *, answered: float = 1.0, failures: int = 0) -> Run:
    draw = random.Random(seed)

    def its() -> Interval:
        times = [0.05 * slower * draw.lognormvariate(0, 0.3) for _ in range(round(50 * answered))]
        return interval(times, sent=50, failures=failures)

    found = run_of(measured([its() for _ in range(60)]))
    found.name, found.began = "run", f"at {seed}"
    return found


def searched(rate: float, limit: Limit = "server", seed: int = 1) -> Run:
    found = run(seed)
    found.capacity = Capacity(
        objective="", rate=rate, fails_at=None, confirmed=3, tries=3, probes=[], limited_by=limit
    )
    return found


def verdicts(before: Run, after: Run) -> dict[str, str]:
    return {line.figure: line.verdict for line in compare(before, after).lines}


def test_equal_runs_do_not_differ() -> None:
    for seed in range(15):
        assert set(verdicts(run(seed), run(seed + 100)).values()) == {SAME}
    assert set(verdicts(run(1), run(1)).values()) == {SAME}


@pytest.mark.parametrize(("slower", "verdict"), [(1.5, "worse"), (0.6, "better")])
def test_latency_difference_is_found(slower: float, verdict: str) -> None:
    comparison = compare(run(1), run(2, slower))
    found = {line.figure: line for line in comparison.lines}
    assert found["p50"].verdict == found["p99"].verdict == verdict
    assert found["p50"].change.low < slower < found["p50"].change.high
    assert comparison.verdict == verdict
    assert comparison.worse is (verdict == "worse")
    assert f"{found['p50'].change.value:.2f}x" in render(comparison)


def test_throughput_counts_unless_it_follows_the_load() -> None:
    assert "throughput/s" not in verdicts(run(1), run(2))
    assert verdicts(run(1), run(2, answered=0.5))["throughput/s"] == "worse"
    assert verdicts(run(1, answered=0.5), run(2))["throughput/s"] == "better"


@pytest.mark.parametrize(("before", "after", "verdict"), [(0, 5, "worse"), (5, 0, "better"), (5, 5, SAME)])
def test_failure_shares_are_compared(before: int, after: int, verdict: str) -> None:
    assert verdicts(run(1, failures=before), run(2, failures=after))["failures"] == verdict


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (100, 110, SAME),
        (100, 150, "better"),
        (100, 50, "worse"),
        (100, 0, "worse"),
        (0, 100, "better"),
        (0, 0, SAME),
    ],
)
def test_capacities_differ_beyond_the_search_error(before: float, after: float, verdict: str) -> None:
    comparison = compare(searched(before), searched(after))
    assert [line.verdict for line in comparison.lines] == [verdict]
    assert verdict in render(comparison)


@pytest.mark.parametrize(
    ("limit", "warned"),
    [("server", 0), ("harness", 1), ("range", 1), ("replies", 1)],
)
def test_capacity_not_limited_by_server_is_warned_of(limit: Limit, warned: int) -> None:
    warnings = compare(searched(100), searched(100, limit, seed=2)).warnings
    assert ["run at 2: the search" in warning for warning in warnings] == [True] * warned


@pytest.mark.parametrize("bad", [0, 1])
def test_failed_checks_give_no_verdict(bad: int) -> None:
    runs = run(1), run(2, 0.5)
    runs[bad].segments[0].intervals["query"][0].failures = {"wrong: order": 3}
    comparison = compare(*runs)
    assert "no verdict" in comparison.verdict
    assert comparison.worse
    assert len(comparison.warnings) == 1


def test_doubts_are_warned_of() -> None:
    other = run(2)
    other.scenario, other.machine = "bulk", "8 cores"
    other.segments[0].intervals["query"][0].failures = {"wrong: order": 3}
    other.segments[0].processes = [Process(name="p", cpu=0.99, late=0.0, machine_cpu=0.5)]
    text = " ".join(compare(run(1), other).warnings)
    assert all(said in text for said in ("another scenario", "8 cores", "3 checks failed", "99% of a core"))
    assert compare(run(1), run(2)).warnings == []


@pytest.mark.parametrize("field", ["name", "rate"])
def test_runs_without_common_segment_are_refused(field: str) -> None:
    other = run(2)
    setattr(other.segments[0].segment, field, {"name": "another", "rate": 99.0}[field])
    with pytest.raises(ValueError, match=r"run at 1 and run at 2 .* in common"):
        compare(run(1), other)
