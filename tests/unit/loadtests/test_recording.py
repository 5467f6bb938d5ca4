"""Records: a request counts in the interval in which it was due, a reply in the one in which it came."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.loadtests import histogram
from triptych.loadtests.histogram import bucket
from triptych.loadtests.recording import Recorder, Samples, Timeline, Total, interval_for
from triptych.loadtests.results import Segment

SEGMENTS = [Segment(name="a", seconds=2.0, rate=1), Segment(name="b", seconds=1.5, rate=2)]


def recorded() -> tuple[Recorder, Total]:
    timeline = Timeline(SEGMENTS, 1.0)
    return Recorder(timeline), Total(timeline, ["query"])


def sent_on(recorder: Recorder, total: Total) -> None:
    total.add(msgspec.msgpack.decode(msgspec.msgpack.encode(recorder.take()), type=Samples))


def test_latency_when_due_throughput_when_answered() -> None:
    recorder, total = recorded()
    recorder.sent("query", 0.5)
    recorder.answered("query", 0.5, 2.1, items=3, tokens=40, clocks={"total": 1.6})
    sent_on(recorder, total)
    first, second = (segment["query"] for segment in total.segments)
    assert (first[0].sent, first[0].done, first[0].clocks) == (1, 0, {"total": {bucket(1.6): 1}})
    assert (second[0].sent, second[0].done, second[0].items, second[0].tokens) == (0, 1, 3, 40)


def test_late_reply_is_no_throughput() -> None:
    recorder, total = recorded()
    recorder.sent("query", 3.4)
    recorder.answered("query", 3.4, 9.0, items=1, tokens=2, clocks={"total": 5.6})
    sent_on(recorder, total)
    last = total.segments[1]["query"][1]
    assert last.clocks == {"total": {bucket(5.6): 1}}
    assert sum(interval.done for segment in total.segments for interval in segment["query"]) == 0


def test_failures_by_kind_with_an_example() -> None:
    recorder, total = recorded()
    for detail in ("first", "second"):
        recorder.sent("query", 0.1)
        recorder.failed("query", 0.1, "HTTP 429", detail)
        sent_on(recorder, total)
    assert total.segments[0]["query"][0].failures == {"HTTP 429": 2}
    assert total.examples == {"HTTP 429": "first"}
    assert recorder.in_flight == 0


def test_in_flight_adds_up_over_processes() -> None:
    recorder, total = recorded()
    recorder.sent("query", 0.1)
    recorder.sent("query", 0.2)
    recorder.tick(0.999)
    recorder.failed("query", 0.1, "timeout", "")
    recorder.tick(1.999)
    sent_on(recorder, total)
    sent_on(Recorder(Timeline(SEGMENTS, 1.0)), total)
    other = Recorder(Timeline(SEGMENTS, 1.0))
    other.sent("query", 0.5)
    other.tick(0.999)
    sent_on(other, total)
    assert [interval.in_flight for interval in total.segments[0]["query"]] == [3, 1]
    assert recorder.in_flight == 1


@pytest.mark.parametrize(
    ("seconds", "interval"),
    [([4.0], 0.25), ([10.0], 0.5), ([60.0], 1.0), ([3600.0], 6.0), ([30.0, 4.0], 0.25)],
)
def test_interval_length(seconds: list[float], interval: float) -> None:
    assert interval_for(Segment(name="x", seconds=its, rate=1) for its in seconds) == interval


TIMES = st.lists(st.floats(2e-5, 500), min_size=1, max_size=300)


def counted(times: list[float]) -> histogram.Counts:
    return histogram.merged({histogram.bucket(time): 1} for time in times)


@given(TIMES, st.integers(0, 100))
def test_percentile_is_exact_to_one_percent(times: list[float], percent: int) -> None:
    rank = max(1, -(-percent * len(times) // 100))
    exact = sorted(times)[rank - 1]
    assert histogram.percentile(counted(times), percent / 100) == pytest.approx(exact, rel=0.0101)


@given(TIMES)
def test_mean_is_exact_to_one_percent(times: list[float]) -> None:
    assert histogram.mean(counted(times)) == pytest.approx(sum(times) / len(times), rel=0.0101)


@given(TIMES, TIMES)
def test_merged_parts_equal_the_whole(one: list[float], other: list[float]) -> None:
    assert histogram.merged([counted(one), counted(other)]) == counted(one + other)
