"""Runs cut by time and by load, and the words of the report."""

import math

import pytest

from tests.unit.loadtests.sample_run import build, constant, searched, steps
from triptych.loadtests import estimates
from triptych.loadtests.report import tables
from triptych.loadtests.report.cuts import latency, mean_time, moments, points
from triptych.loadtests.report.words import duration, number, share
from triptych.loadtests.results import Segment


@pytest.mark.parametrize("seconds", [60.0, 60.3, 59.9, 7.0])
@pytest.mark.parametrize("most", [5, 40, 1000])
def test_moments_hold_every_interval_once(seconds: float, most: int) -> None:
    run = build([constant(seconds=seconds)])
    pieces = [moment.measured for moment in moments(run, most)]
    assert len(pieces) <= max(most, 1)
    joined = [one for piece in pieces if piece for one in piece.intervals["query"]]
    assert joined == run.segments[0].intervals["query"]
    assert sum(piece.segment.seconds for piece in pieces if piece) == pytest.approx(seconds)


def test_pause_between_segments_is_a_gap() -> None:
    gaps = [moment.measured is None for moment in moments(build(steps(50, 100), gap=10.0))]
    assert sum(gaps) == 1
    assert all(moment.measured for moment in moments(build(steps(50, 100))))


def test_probes_are_ordered_by_rate() -> None:
    found = [(point.load, point.verdict) for point in points(searched())]
    assert found[-3:] == [(412, "holds"), (440, "fails"), (800, "fails")]


def test_ramp_is_cut_into_rising_loads() -> None:
    run = build([Segment(name="ramp", seconds=120.0, settle=12.0, rate=(0.0, 400.0))])
    found = points(run)
    assert len(found) == 12
    assert found[0].load == pytest.approx(400 * (12 + 4.5) / 120)
    assert found[-1].load == pytest.approx(400 * (120 - 4.5) / 120)
    for point in found:
        assert estimates.offered(point.measured).value == pytest.approx(point.load, rel=0.25)


def test_equal_loads_are_one_point() -> None:
    run = build(steps(50, 100, 50))
    assert [(point.load, len(point.measured)) for point in points(run)] == [(50, 2), (100, 1)]


def test_settling_does_not_change_a_percentile() -> None:
    run = build([constant()])
    before = latency(run.segments, 0.99)
    for second, slower in ((4, False), (5, True)):
        for row in run.segments[0].intervals.values():
            row[second].clocks["total"] = {700: 10_000}
        assert (latency(run.segments, 0.99) > 2 * before) is slower
    assert math.isnan(latency(run.segments, 0.99, flow="absent"))


def test_parts_add_up_to_the_mean_latency() -> None:
    run = build([constant()])
    parts = tables.spent(run.segments)
    assert list(parts) == ["waiting to be sent", "network and client", "router", "queue", "inference"]
    assert sum(parts.values()) == pytest.approx(mean_time(run.segments, "total"), rel=0.01)


def test_server_without_clock_is_one_part() -> None:
    run = build([constant()])
    for row in run.segments[0].intervals.values():
        for one in row:
            one.clocks = {"total": one.clocks["total"], "service": one.clocks["service"]}
    assert list(tables.spent(run.segments)) == ["waiting to be sent", "server and network"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0000451, "45.1 µs"),
        (0.00099949, "999 µs"),
        (0.00099951, "1 ms"),
        (0.01234, "12.3 ms"),
        (0.99951, "1 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (4.567, "4.57"), (9_999, "9,999"), (9_999.6, "10k"), (80_400, "80.4k"), (999_600, "1M")],
)
def test_large_numbers_are_in_thousands(value: float, said: str) -> None:
    assert number(value) == said


def test_tiny_share_is_not_zero() -> None:
    assert [share(value) for value in (0, 1e-6, 0.5)] == ["0 %", "0.0001 %", "50 %"]
