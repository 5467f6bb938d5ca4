"""Runs held against another: a difference that is there is found, one that is not is not claimed."""

import random
from collections.abc import Sequence

import pytest

from loadtests.compare import compare, render
from loadtests.results import Capacity, Interval, Limit, Process, Run
from tests.unit.loadtests import sample_run
from tests.unit.loadtests.test_estimates import interval, measured


def run(
    seed: int,
    slower: float = 1.0,
    *,
    answered: float = 1.0,
    failures: int = 0,
    loop: str = "open",
    name: str = "run",
) -> Run:
    draw = random.Random(seed)

    def its() -> Interval:
        times = [0.05 * slower * draw.lognormvariate(0, 0.3) for _ in range(round(50 * answered))]
        return interval(times, sent=50, failures=failures)

    found = sample_run.build([sample_run.constant(seconds=10)], flows={"query": 1.0})
    found.name, found.began = name, f"at {seed}"
    if loop == "closed":
        found.loop = "closed"
    found.segments = [measured([its() for _ in range(60)])]
    return found


def verdicts(runs: Sequence[Run], tolerance: float = 0.05) -> dict[str, str]:
    return {line.figure: line.verdict for line in compare(runs, tolerance).lines}


def test_a_run_against_itself_and_against_another_of_the_same_does_not_differ() -> None:
    told = 0
    for seed in range(20):
        told += sum(
            verdict != "no difference that can be told"
            for verdict in verdicts([run(seed), run(seed + 100)]).values()
        )
    assert told == 0
    assert set(verdicts([run(1), run(1)]).values()) == {"no difference that can be told"}


@pytest.mark.parametrize(("slower", "verdict"), [(1.5, "worse"), (0.6, "better")])
def test_a_difference_in_latency_is_found_with_its_ratio(slower: float, verdict: str) -> None:
    comparison = compare([run(1), run(2, slower)])
    found = {line.figure: line for line in comparison.lines}
    assert found["p50"].verdict == found["p99"].verdict == verdict
    assert found["p50"].ratio.low < slower < found["p50"].ratio.high
    assert verdict in comparison.summary
    assert f"{found['p50'].ratio.value:.2f}x" in render(comparison)


def test_what_is_within_the_tolerance_is_no_difference() -> None:
    assert verdicts([run(1), run(2, 1.5)], tolerance=1.0)["p50"] == "no difference that can be told"


def test_throughput_counts_in_a_closed_loop_and_where_a_server_cannot_keep_up() -> None:
    assert "throughput" not in verdicts([run(1), run(2)])
    assert verdicts([run(1, loop="closed"), run(2, answered=0.5, loop="closed")])["throughput"] == "worse"
    assert verdicts([run(1, answered=0.5), run(2)])["throughput"] == "better"


def test_items_and_tokens_count_where_throughput_does() -> None:
    runs = [run(1, loop="closed"), run(2, loop="closed")]
    for its, items in zip(runs, (10, 30), strict=True):
        for one in its.segments[0].intervals["query"]:
            one.items, one.tokens = items, 100
    found = verdicts(runs)
    assert (found["items"], found["tokens"]) == ("better", "no difference that can be told")


def test_failures_count_as_a_difference_of_shares() -> None:
    assert verdicts([run(1), run(2, failures=5)])["failures"] == "worse"
    assert verdicts([run(1, failures=5), run(2)])["failures"] == "better"
    assert verdicts([run(1, failures=5), run(2, failures=5)])["failures"] == "no difference that can be told"


def test_capacities_differ_by_more_than_a_search_is_off() -> None:
    def searched(rate: float) -> Run:
        found = run(1)
        found.capacity = Capacity(objective="", rate=rate, fails_at=None, confirmed=3, tries=3, probes=[])
        return found

    assert verdicts([searched(100), searched(110)]) == {"capacity": "no difference that can be told"}
    assert verdicts([searched(100), searched(150)]) == {"capacity": "better"}
    assert verdicts([searched(100), searched(50)]) == {"capacity": "worse"}
    assert verdicts([searched(100), searched(0)]) == {"capacity": "worse"}
    assert verdicts([searched(0), searched(100)]) == {"capacity": "better"}
    assert verdicts([searched(0), searched(0)]) == {"capacity": "no difference that can be told"}
    assert "worse" in render(compare([searched(100), searched(0)]))
    assert "better" in render(compare([searched(0), searched(100)]))


@pytest.mark.parametrize(
    ("limit", "warned"),
    [
        ("server", ""),
        ("harness", "the harness"),
        ("range", "the range of the search"),
        ("replies", "the length of its tries"),
    ],
)
def test_a_capacity_that_the_server_did_not_limit_is_warned_of(limit: Limit, warned: str) -> None:
    one, other = run(1), run(2)
    for its in (one, other):
        its.capacity = Capacity(objective="", rate=100, fails_at=None, confirmed=3, tries=3, probes=[])
    assert other.capacity is not None
    other.capacity.limited_by = limit
    assert compare([one, other]).warnings == (
        [f"run at 2: {warned} was the limit, so its capacity is at least this"] if warned else []
    )


@pytest.mark.parametrize("bad", [0, 1])
def test_no_verdict_heads_a_comparison_with_a_run_that_failed_its_checks(bad: int) -> None:
    runs = [run(1), run(2, 0.5), run(3, 0.5)]
    runs[bad].segments[0].intervals["query"][0].failures = {"wrong: order": 3}
    comparison = compare(runs)
    heads = comparison.summary.splitlines()
    assert "no verdict, as checks failed" in heads[0]
    assert ("better" in heads[1]) is (bad == 1)
    assert len(comparison.warnings) == 1


def test_several_runs_are_each_held_against_the_first() -> None:
    lines = compare([run(1), run(2, 1.5, name="b"), run(3, 0.6, name="c")]).lines
    assert {(line.run, line.verdict) for line in lines} == {("b at 2", "worse"), ("c at 3", "better")}


def test_reasons_not_to_believe_it_are_named() -> None:
    other = run(2)
    other.scenario, other.machine = "bulk", "8 cores"
    other.segments[0].intervals["query"][0].failures = {"wrong: order": 3}
    other.segments[0].processes = [Process(name="p", cpu=0.99, lag=0.0, late=0.0)]
    comparison = compare([run(1), other])
    text = " ".join(comparison.warnings)
    for said in ("another scenario", "8 cores", "3 checks failed", "99% of a core"):
        assert said in text
    assert "warnings" in comparison.summary
    assert compare([run(1), run(2)]).warnings == []


def test_runs_that_have_nothing_in_common_are_refused() -> None:
    other = run(2)
    other.segments[0].segment.name = "another"
    with pytest.raises(ValueError, match=r"run at 2 and run at 1 have no segment .* in common"):
        compare([run(1), other])
    with pytest.raises(ValueError, match="run at 2 and run at 1"):
        compare([run(1), run(3), other])
    elsewhere = run(2)
    elsewhere.segments[0].segment.rate = (99, 99)
    with pytest.raises(ValueError, match="in common"):
        compare([run(1), elsewhere])
    with pytest.raises(ValueError, match="two runs"):
        compare([run(1)])
