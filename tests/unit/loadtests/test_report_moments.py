import numpy as np
import pytest

from loadtests.report import tables
from loadtests.report.moments import clock_mean, clock_percentile, moments, points
from loadtests.report.words import duration, masked, number, share
from loadtests.results import Run, Segment
from tests.unit.loadtests.sample_run import build, constant, searched, steps


def _sent(run: Run) -> int:
    return sum(one.sent for measured in run.segments for row in measured.intervals.values() for one in row)


@pytest.mark.parametrize("seconds", [60.0, 60.3, 59.9, 7.0])
@pytest.mark.parametrize("most", [5, 40, 1000])
def test_taking_intervals_together_loses_and_doubles_no_request(seconds: float, most: int) -> None:
    run = build([constant(seconds=seconds)])
    seen = moments(run, most=most)
    edges = [0.0]
    for middle in seen.at:
        edges.append(2 * middle - edges[-1])
    assert edges[-1] == pytest.approx(seconds)
    assert np.dot(seen.offered, np.diff(edges)) == pytest.approx(_sent(run))


@pytest.mark.parametrize("seconds", [59.9, 60.3])
def test_a_short_rest_of_a_segment_is_no_moment_of_its_own(seconds: float) -> None:
    assert len(moments(build([constant(seconds=seconds)])).at) == 60


def test_a_pause_between_loads_is_a_gap() -> None:
    assert np.isnan(moments(build(steps(50, 100), gap=10.0)).offered).sum() == 1
    assert not np.isnan(moments(build(steps(50, 100))).offered).any()


def test_a_flow_can_be_looked_at_alone() -> None:
    run = build([constant()])
    both = moments(run, [("total", 0.5)])
    alone = [moments(run, [("total", 0.5)], flow) for flow in ("query", "indexing")]
    assert np.allclose(alone[0].offered + alone[1].offered, both.offered)
    assert np.nanmax(alone[0].latency["total", 0.5]) < np.nanmin(alone[1].latency["total", 0.5])


def test_probes_of_a_search_are_ordered_by_rate_with_their_verdict() -> None:
    found = [(point.load, point.verdict) for point in points(searched())]
    assert found[-3:] == [(412, "holds"), (440, "fails"), (800, "fails")]


def test_a_ramp_is_cut_into_loads_that_rise_and_leaves_out_what_settles() -> None:
    run = build([Segment(name="ramp", seconds=120.0, settle=12.0, rate=(0.0, 400.0))])
    found = points(run)
    assert len(found) == 12
    assert found[0].load == pytest.approx(400 * (12 + 4.5) / 120)
    assert found[-1].load == pytest.approx(400 * (120 - 4.5) / 120)
    for point in found:
        [part] = point.measured
        sent = sum(one.sent for row in part.intervals.values() for one in row) / part.segment.seconds
        assert sent == pytest.approx(point.load, rel=0.25)


def test_loads_that_came_twice_are_one_point() -> None:
    run = build(steps(50, 100, 50))
    assert [(point.load, len(point.measured)) for point in points(run)] == [(50, 2), (100, 1)]


def test_what_settles_is_not_in_a_percentile() -> None:
    run = build([constant()])
    before = clock_percentile(run.segments, 0.99)
    for row in run.segments[0].intervals.values():
        row[4].clocks["total"] = {700: 10_000}
    assert clock_percentile(run.segments, 0.99) == before
    for row in run.segments[0].intervals.values():
        row[5].clocks["total"] = {700: 10_000}
    assert clock_percentile(run.segments, 0.99) > 2 * before


def test_the_parts_of_the_time_add_up_to_the_mean_latency() -> None:
    run = build([constant()])
    [spent] = tables.spent([("steady", run.segments)])
    assert {part.name for part in spent.shares} >= {"queue", "inference", "network and client"}
    whole = clock_mean(run.segments, "total")
    assert sum(part.seconds for part in spent.shares) == pytest.approx(whole, rel=0.01)


def test_without_the_servers_clocks_its_time_is_one_part() -> None:
    run = build([constant()])
    for row in run.segments[0].intervals.values():
        for one in row:
            one.clocks = {"total": one.clocks["total"], "service": one.clocks["service"]}
    [spent] = tables.spent([("steady", run.segments)])
    assert [part.name for part in spent.shares] == ["waiting to be sent", "server and network"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0000451, "45 µs"),
        (0.00099949, "999 µs"),
        (0.00099951, "1 ms"),
        (0.01234, "12.3 ms"),
        (0.99949, "999 ms"),
        (0.99951, "1 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_times_are_told_in_three_digits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (4.567, "4.57"), (9_999, "9,999"), (9_999.6, "10k"), (80_400, "80.4k"), (999_600, "1M")],
)
def test_large_numbers_are_told_in_thousands(value: float, said: str) -> None:
    assert number(value) == said


def test_a_small_share_does_not_read_as_none() -> None:
    assert share(0) == "0 %"
    assert share(1e-6) == "0.0001 %"
    assert share(0.5) == "50 %"


def test_only_what_stands_before_the_host_is_masked() -> None:
    assert masked("http://a:b@c@host:1/p and https://host/a@b") == "http://***@host:1/p and https://host/a@b"
