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
