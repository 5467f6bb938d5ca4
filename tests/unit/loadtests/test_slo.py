"""Objectives: read with clear errors, and each bound fails when it is missed and never passes unmeasured."""

from pathlib import Path

import pytest

from loadtests import slo
from loadtests.objectives import Objectives, read_objectives
from loadtests.report.headline import p99_limit
from loadtests.results import Capacity, Idle, Measured, Run
from tests.unit.loadtests import sample_run
from tests.unit.loadtests.test_estimates import interval, measured


def run_of(one: Measured, **named: Measured) -> Run:
    run = sample_run.build([sample_run.constant(seconds=10)], flows={"query": 1.0})
    one.segment.name = "steady"
    for name, other in named.items():
        other.segment.name = name
    run.segments = [one, *named.values()]
    run.idle = {"query": Idle(requests=20, p50=0.01, p99=0.02, tokens=10)}
    return run


def steady(seconds: float = 0.1, failures: int = 0, sent: int | None = None) -> Measured:
    times = [seconds * (0.5 + number / 50) for number in range(50)]
    return measured([interval(times, failures=failures, sent=sent)] * 12)


def objectives(text: str, tmp_path: Path) -> Objectives:
    file = tmp_path / "slo.toml"
    file.write_text(text)
    return read_objectives(str(file))


@pytest.mark.parametrize(
    ("bound", "kept", "missed"),
    [
        ("p50_ms", 120, 80),
        ("p90_ms", 200, 100),
        ("p99_ms", 200, 100),
        ("p999_ms", 200, 100),
        ("failure_share", 0.05, 0.01),
        ("throughput", 45, 60),
        ("throughput_share", 0.9, 0.99),
        ("p99_over_p50", 2, 1.2),
        ("p99_over_idle_p50", 20, 10),
    ],
)
def test_each_bound_passes_when_kept_and_fails_when_missed(
    bound: str, kept: float, missed: float, tmp_path: Path
) -> None:
    run = run_of(steady(failures=2))
    for value, passes in ((kept, True), (missed, False)):
        judgement = slo.judge(run, objectives(f"[[objective]]\n{bound} = {value}\n", tmp_path))
        assert judgement.passed is passes, slo.render(judgement)
        assert ("PASS" if passes else "FAIL") in slo.render(judgement)


def test_another_clock_is_judged_by_that_clock(tmp_path: Path) -> None:
    one = steady()
    for its in one.intervals["query"]:
        its.clocks["router"] = {1: 1}
    judged = objectives("[[objective]]\nrouter_p99_ms = 1\n", tmp_path)
    assert slo.judge(run_of(one), judged).passed
    assert not slo.judge(run_of(steady()), judged).passed


def test_the_capacity_is_judged(tmp_path: Path) -> None:
    run = run_of(steady())
    judged = objectives("[[objective]]\ncapacity = 100\n", tmp_path)
    assert not slo.judge(run, judged).passed
    for rate, passes in ((120.0, True), (80.0, False)):
        run.capacity = Capacity(objective="", rate=rate, fails_at=150.0, confirmed=3, tries=3, probes=[])
        assert slo.judge(run, judged).passed is passes


@pytest.mark.parametrize(
    "text", ['flow = "absent"', 'segments = ["absent"]', 'segments = ["steady", "absent"]']
)
def test_what_there_is_nothing_to_hold_against_fails(text: str, tmp_path: Path) -> None:
    judgement = slo.judge(run_of(steady()), objectives(f"[[objective]]\n{text}\np99_ms = 1000\n", tmp_path))
    assert not judgement.passed
    assert "nothing to hold it against" in slo.render(judgement)


def test_only_the_segments_that_are_named_are_judged(tmp_path: Path) -> None:
    run = run_of(steady(), spike=steady(10.0))
    text = '[[objective]]\nsegments = ["{}"]\np99_ms = 1000\n'
    assert slo.judge(run, objectives(text.format("steady"), tmp_path)).passed
    assert not slo.judge(run, objectives(text.format("spike"), tmp_path)).passed
    assert not slo.judge(run, objectives("[[objective]]\np99_ms = 1000\n", tmp_path)).passed


def test_a_run_with_a_wrong_reply_or_a_complaint_never_passes(tmp_path: Path) -> None:
    judged = objectives("[[objective]]\np99_ms = 100000\n", tmp_path)
    one = steady()
    one.intervals["query"][0].failures = {"wrong: order": 1}
    assert not slo.judge(run_of(one), judged).passed
    run = run_of(steady())
    assert slo.judge(run, judged).passed
    run.golden.complaints = ["tasks a and b answer with the same vectors"]
    assert not slo.judge(run, judged).passed


def test_no_reply_is_no_latency_and_does_not_pass(tmp_path: Path) -> None:
    nothing = measured([interval(sent=10)] * 12)
    assert not slo.judge(run_of(nothing), objectives("[[objective]]\np99_ms = 1000\n", tmp_path)).passed


@pytest.mark.parametrize("bound", ["failure_share = 0.5", "throughput_share = 0.1", "p99_ms = 1000"])
def test_a_flow_that_sent_nothing_passes_no_bound(bound: str, tmp_path: Path) -> None:
    one = measured([interval([0.1] * 50)] * 12, idle=[interval()] * 12)
    judged = objectives(f'[[objective]]\nflow = "idle"\n{bound}\n', tmp_path)
    assert not slo.judge(run_of(one), judged).passed


@pytest.mark.parametrize(
    ("bound", "value", "passes"),
    [("p99", 1.2, False), ("p99", 2.5, True), ("p50", 1.2, False), ("throughput", 0.9, True)],
)
def test_a_baseline_is_a_bound_as_a_ratio(bound: str, value: float, passes: bool, tmp_path: Path) -> None:
    judged = objectives(f"[baseline]\n{bound} = {value}\n", tmp_path)
    assert slo.judge(run_of(steady(0.2)), judged, run_of(steady(0.1))).passed is passes


def test_a_baseline_that_is_not_given_or_has_nothing_in_common_fails(tmp_path: Path) -> None:
    judged = objectives("[baseline]\np99 = 10\n", tmp_path)
    assert not slo.judge(run_of(steady()), judged).passed
    other = run_of(steady())
    other.segments[0].segment.name = "another"
    assert not slo.judge(run_of(steady()), judged, other).passed
    heavier = run_of(steady())
    assert slo.judge(run_of(steady()), judged, heavier).passed
    heavier.segments[0].segment.rate = (999, 999)
    assert not slo.judge(run_of(steady()), judged, heavier).passed


def test_a_baseline_with_a_wrong_reply_is_none(tmp_path: Path) -> None:
    other = run_of(steady())
    other.segments[0].intervals["query"][0].failures = {"wrong: order": 1}
    judgement = slo.judge(run_of(steady()), objectives("[baseline]\np99 = 10\n", tmp_path), other)
    assert not judgement.passed
    assert "12 of its checks failed" in slo.render(judgement)


def test_capacities_are_held_against_each_other_whatever_rates_were_tried(tmp_path: Path) -> None:
    def searched(rate: float, tried: str) -> Run:
        found = run_of(steady())
        found.segments[0].segment.name = tried
        found.capacity = Capacity(objective="", rate=rate, fails_at=None, confirmed=3, tries=3, probes=[])
        return found

    judged = objectives("[baseline]\ncapacity = 0.9\n", tmp_path)
    before = searched(100, "probe 100/s")
    assert slo.judge(searched(95, "probe 95/s"), judged, before).passed
    assert not slo.judge(searched(80, "probe 80/s"), judged, before).passed


def test_a_bound_within_the_confidence_interval_is_close(tmp_path: Path) -> None:
    found = slo.judge(run_of(steady()), objectives("[[objective]]\np50_ms = 101\n", tmp_path)).lines
    assert [line.close for line in found] == [False, True]
    far = slo.judge(run_of(steady()), objectives("[[objective]]\np50_ms = 1000\n", tmp_path)).lines
    assert [line.close for line in far] == [False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[objective]]\np98_ms = 3\n", "p98_ms"),
        ("[[objective]]\np99_ms = -3\n", "p99_ms"),
        ('[[objective]]\nflow = "query"\n', "bounds nothing"),
        ("", "neither"),
        ("[baseline]\n", "bounds nothing"),
        ("[[objective]]\np98_ms = 3\n", "but flow, segments, p50_ms"),
        ("[baseline]\np98 = 3\n", "but p50, p99, throughput, capacity"),
        ("[[objectives]]\np99_ms = 3\n", "but objective, baseline"),
        ("p99 = ", "no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_name_and_the_field(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        objectives(text, tmp_path)
    assert "slo.toml" in str(refused.value)


def test_objectives_in_short() -> None:
    [found] = read_objectives("p99=250ms, p50=0.1s,failures=0.1%,throughput=50,capacity=100").objective
    assert (found.p99_ms, found.p50_ms, found.failure_share) == (250, 100, 0.001)
    assert (found.throughput, found.capacity) == (50, 100)


@pytest.mark.parametrize(
    "text",
    [
        "p99=250",
        "p98=1ms",
        "failures=0.1",
        "p99=",
        "p99=-1ms",
        "p99=xms",
        "=",
        "a=b,p99=1ms",
        "p99=1ms,p99=9s",
    ],
)
def test_objectives_in_short_that_make_no_sense_are_refused_with_what_would(text: str) -> None:
    with pytest.raises(ValueError, match="--slo"):
        read_objectives(text)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"absent\.toml"):
        read_objectives("absent.toml")


def test_of_a_search_the_confirmations_are_judged_and_not_what_it_tried(tmp_path: Path) -> None:
    run = run_of(steady(10.0), **{"confirm 1 of 3 at 80/s": steady(0.1)})
    run.segments[1].segment.rate = (80.0, 80.0)
    judged = objectives("[[objective]]\np99_ms = 1000\n", tmp_path)
    assert not slo.judge(run, judged).passed
    run.capacity = Capacity(objective="", rate=80.0, fails_at=90.0, confirmed=3, tries=3, probes=[])
    assert slo.judge(run, judged).passed


def test_confirmations_of_a_rate_that_a_search_gave_up_are_not_judged(tmp_path: Path) -> None:
    run = run_of(steady(), **{"confirm 1 of 3 at 84/s": steady(10.0), "confirm 1 of 3 at 80/s": steady(0.1)})
    for one, rate in zip(run.segments, (80.0, 84.0, 80.0), strict=True):
        one.segment.rate = rate, rate
    judged = objectives("[[objective]]\np99_ms = 1000\n", tmp_path)
    run.capacity = Capacity(objective="", rate=80.0, fails_at=84.0, confirmed=3, tries=3, probes=[])
    judgement = slo.judge(run, judged)
    assert judgement.passed, slo.render(judgement)
    assert len(judgement.lines) == 2
    # What was never confirmed is no capacity to be gated by.
    run.capacity.rate = 70.0
    assert not slo.judge(run, judged).passed


@pytest.mark.parametrize(("bound", "line"), [("p99_ms", 0.25), ("service_p99_ms", None), ("p50_ms", None)])
def test_the_report_draws_the_bound_of_the_p99(bound: str, line: float | None, tmp_path: Path) -> None:
    run = run_of(steady(0.1))
    judgement = slo.judge(run, objectives(f"[[objective]]\n{bound} = 250\n", tmp_path))
    assert p99_limit(run, judgement) == line
