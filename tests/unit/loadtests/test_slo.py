"""Objectives: how they are read, and when a run passes."""

from pathlib import Path

import pytest

from tests.unit.loadtests.sample_run import interval, measured, run_of, steady
from triptych.loadtests import slo
from triptych.loadtests.objectives import Objectives, read_objectives
from triptych.loadtests.report import headline
from triptych.loadtests.results import Capacity, Measured, Probe


def objectives(text: str, tmp_path: Path) -> Objectives:
    file = tmp_path / "slo.toml"
    file.write_text(text)
    return read_objectives(str(file))


def bounded(text: str, tmp_path: Path) -> Objectives:
    return objectives(f"[[objective]]\n{text}\n", tmp_path)


def named(one: Measured, name: str, rate: float = 10.0) -> Measured:
    one.segment.name, one.segment.rate = name, rate
    return one


def capacity(rate: float) -> Capacity:
    return Capacity(objective="", rate=rate, fails_at=None, confirmed=3, tries=3, probes=[])


@pytest.mark.parametrize(
    ("bound", "kept", "missed"),
    [
        ("p50_ms", 120, 80),
        ("p90_ms", 200, 100),
        ("p99_ms", 200, 100),
        ("p999_ms", 200, 100),
        ("failure_share", 0.05, 0.01),
        ("throughput", 45, 60),
        ("capacity", 100, 150),
    ],
)
def test_each_bound_can_pass_and_fail(bound: str, kept: float, missed: float, tmp_path: Path) -> None:
    run = run_of(steady(failures=2))
    if bound == "capacity":
        run.capacity = capacity(120)
    for value, passes in ((kept, True), (missed, False)):
        judgement = slo.judge(run, bounded(f"{bound} = {value}", tmp_path))
        assert slo.passed(judgement) is passes
        assert headline.judged(judgement).title.startswith("PASS" if passes else "FAIL")


@pytest.mark.parametrize(
    "text",
    [
        'flow = "absent"\np99_ms = 1000',
        'segments = ["absent"]\np99_ms = 1000',
        'segments = ["steady", "absent"]\np99_ms = 1000',
        'flow = "idle"\nfailure_share = 0.5',
        'flow = "idle"\np99_ms = 1000',
        "capacity = 1",
    ],
)
def test_missing_measurements_fail(text: str, tmp_path: Path) -> None:
    one = measured([interval([0.1] * 50)] * 12, idle=[interval()] * 12)
    assert not slo.passed(slo.judge(run_of(one), bounded(text, tmp_path)))


def test_only_named_segments_are_judged(tmp_path: Path) -> None:
    run = run_of(steady(), named(steady(10.0), "spike"))
    assert slo.passed(slo.judge(run, bounded('segments = ["steady"]\np99_ms = 1000', tmp_path)))
    assert not slo.passed(slo.judge(run, bounded('segments = ["spike"]\np99_ms = 1000', tmp_path)))
    assert not slo.passed(slo.judge(run, bounded("p99_ms = 1000", tmp_path)))


def test_failed_checks_never_pass(tmp_path: Path) -> None:
    judged, run = bounded("p99_ms = 100000", tmp_path), run_of(steady())
    assert slo.passed(slo.judge(run, judged))
    run.golden.complaints = ["tasks a and b answer with the same vectors"]
    assert not slo.passed(slo.judge(run, judged))
    run = run_of(steady())
    run.segments[0].intervals["query"][0].failures = {"wrong: order": 1}
    assert not slo.passed(slo.judge(run, judged))


def test_search_is_judged_by_its_confirmations(tmp_path: Path) -> None:
    run = run_of(
        named(steady(10.0), "confirm 1 of 3 at 80/s", 80.0),
        named(steady(10.0), "confirm 1 of 3 at 84/s", 84.0),
        named(steady(0.1), "confirm 2 of 3 at 80/s", 80.0),
    )
    judged = bounded("p99_ms = 1000", tmp_path)
    assert not slo.passed(slo.judge(run, judged))
    run.capacity = capacity(80.0)
    # An unconfirmed capacity cannot pass.
    assert not slo.passed(slo.judge(run, judged))
    run.capacity.probes = [
        Probe(rate=rate, verdict=verdict, segments=[number])
        for number, (rate, verdict) in enumerate(((80.0, "fails"), (84.0, "holds"), (80.0, "holds")))
    ]
    assert slo.passed(slo.judge(run, judged))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[objective]]\np98_ms = 3\n", "p98_ms: unknown field.* flow, segments, p50_ms"),
        ("[[objective]]\np99_ms = -3\n", "p99_ms"),
        ('[[objective]]\nflow = "query"\n', "at least one of p50_ms"),
        ("", "objective: Field required"),
        ("p99 = ", "TOML"),
    ],
)
def test_bad_file_is_refused_with_the_fault(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"(?s)slo\.toml.*{said}"):
        objectives(text, tmp_path)


def test_short_text_is_read() -> None:
    [found] = read_objectives("p99=250ms, p50=0.1s,failures=0.1%,throughput=50,capacity=100").objective
    assert (found.p99_ms, found.p50_ms, found.failure_share) == (250, 100, 0.001)
    assert (found.throughput, found.capacity) == (50, 100)


@pytest.mark.parametrize(
    "part", ["p99=250", "p98=1ms", "failures=0.1", "flow=3", "p99=", "p99=-1ms", "=", "a=b", "p50=9s"]
)
def test_bad_short_text_is_refused(part: str) -> None:
    with pytest.raises(
        ValueError, match=rf"--slo p50=1ms,{part}: cannot read '{part}'; give .*failures=0\.1%"
    ):
        read_objectives(f"p50=1ms,{part}")


def test_bound_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--slo p99=0ms: p99_ms: .*greater than 0"):
        read_objectives("p99=0ms")


RARE = measured([interval([0.1] * 50)] * 12, slow=[interval([0.1])] * 12, idle=[interval()] * 12)


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(0.1), "p99=500ms", "holds"),
        (steady(1.0), "p99=500ms", "fails"),
        (steady(0.1, failures=5), "failures=1%", "fails"),
        (steady(0.1), "failures=0.1%", "holds"),
        # 50 of 60 requests per second are answered: the queue grows.
        (steady(0.1, sent=60), "p99=500ms", "fails"),
        (measured([interval(sent=50)] * 10), "p99=500ms", "fails"),
        # Too few replies for a p99, and for a p99.9.
        (measured([interval([0.1] * 10)] * 10), "p99=500ms", "unclear"),
        (steady(0.1), "p999=500ms", "unclear"),
        # One in ten is slow, so the bound lies within the interval.
        (measured([interval([0.1] * 45 + [0.2] * 5)] * 10), "p90=150ms", "unclear"),
    ],
)
def test_rate_holds_fails_or_is_unclear(one: Measured, text: str, found: str) -> None:
    assert slo.rule([one], read_objectives(text))[0] == found


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(), "throughput = 60", "fails"),
        (steady(), "throughput = 40", "holds"),
        (steady(), 'segments = ["steady"]\np99_ms = 1', "fails"),
        (steady(), 'flow = "absent"\nfailure_share = 0.01', "fails"),
        (RARE, 'flow = "slow"\np99_ms = 500', "unclear"),
        # Nothing was due yet.
        (RARE, 'flow = "idle"\nfailure_share = 0.5', "unclear"),
        (RARE, 'flow = "idle"\np99_ms = 1000', "unclear"),
    ],
)
def test_every_bound_of_a_rate_counts(one: Measured, text: str, found: str, tmp_path: Path) -> None:
    assert slo.rule([one], bounded(text, tmp_path))[0] == found


def test_rarest_judged_flow_decides_how_many_requests(tmp_path: Path) -> None:
    text = '[[objective]]\nflow = "{}"\n{} = 500\n'
    flows = (("query", "p999_ms"), ("slow", "p99_ms"), ("none", "capacity"))
    judged = objectives("".join(text.format(*pair) for pair in flows), tmp_path)
    assert slo.rule([RARE], judged) == ("unclear", "flow query: 600 of 2000 replies", True)
    assert slo.requests_needed(judged, {"query": 0.5, "slow": 0.02}) == pytest.approx(200 / 0.02)
    assert slo.requests_needed(judged, {"query": 0.5, "slow": 0.5}) == pytest.approx(2000 / 0.5)


@pytest.mark.parametrize(("text", "met"), [("p90=100ms", False), ("p90=150ms", True)])
def test_figures_meet_an_objective_however_close(text: str, met: bool) -> None:
    one = measured([interval([0.1] * 45 + [0.2] * 5)] * 10)
    assert slo.rule([one], read_objectives(text)).met is met


def test_wrong_reply_fails_a_rate() -> None:
    one = steady()
    one.intervals["query"][0].failures = {"wrong: golden": 1}
    assert slo.rule([one], read_objectives("p99=500ms"))[0] == "fails"
