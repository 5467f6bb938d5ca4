"""The search for the capacity, of queues whose capacity is known."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from loadtests.capacity import Search
from loadtests.histogram import bucket
from loadtests.objectives import read_objectives
from loadtests.results import Capacity, Interval, Measured, Segment
from loadtests.shapes import Shape
from loadtests.verdict import ENOUGH_REPLIES, Few, Verdict, holds, too_few

SERVED_A_SECOND = 200.0
P99_SECONDS = 0.1
# Times in an M/M/1 queue are exponential, so its p99 is ln(100) / (served - arriving).
TRUTH = SERVED_A_SECOND - math.log(100) / P99_SECONDS
OBJECTIVES = read_objectives("p99=100ms")

Judge = Callable[[Sequence[Measured]], tuple[Verdict, str]]


class Queue:
    """One server that serves one after another, asked by a harness that waits for a segment's last reply.

    Once about each `stalls` seconds it stands still for one. With `sick`, a backlog of more than a second
    makes it four times slower until it has had nothing to do for `sick` seconds in a row.
    """

    INTERVAL = 0.5

    def __init__(
        self, seed: int, *, served: float = SERVED_A_SECOND, stalls: float = math.inf, sick: float = 0.0
    ) -> None:
        self._random = random.Random(seed)
        self._served = served
        self._stalls, self._sick = stalls, sick
        self._now = self._free = 0.0
        self._well = True
        self.segments: list[Segment] = []

    def __call__(self, segment: Segment) -> Measured:
        assert segment.rate is not None
        intervals = [Interval() for _ in range(round(segment.seconds / self.INTERVAL))]
        end = self._now + segment.seconds
        at, ends = self._now, []
        while (at := at + self._random.expovariate(segment.rate[0])) < end:
            self._free = max(self._free, at) + self._service(at, segment.rate[0])
            ends.append(self._free)
            interval = intervals[int((at - self._now) / self.INTERVAL)]
            interval.sent += 1
            counts, number = interval.clocks.setdefault("total", {}), bucket(self._free - at)
            counts[number] = counts.get(number, 0) + 1
        for moment in ends:
            if moment < end:
                intervals[int((moment - self._now) / self.INTERVAL)].done += 1
            else:
                intervals[-1].in_flight += 1
        self._now = max(end, self._free)
        self.segments.append(segment)
        return measured(segment, intervals)

    def _service(self, at: float, rate: float) -> float:
        if self._sick and self._free > at + 1.0:
            self._well = False
        elif at - self._free > self._sick:
            self._well = True
        stalled = self._random.random() < 1 / (rate * self._stalls)
        return self._random.expovariate(self._served * (1.0 if self._well else 0.25)) + stalled


def measured(segment: Segment, intervals: list[Interval]) -> Measured:
    return Measured(
        segment=segment, began=0.0, interval=Queue.INTERVAL, intervals={"query": intervals}, processes=[]
    )


class Scripted:
    """Says of each rate what `says` does; every reply is in at once, or with `dead` none is."""

    def __init__(self, says: Callable[[float], Verdict]) -> None:
        self._says = says
        self.segments: list[Segment] = []
        self.judged: list[int] = []
        self.dead = False

    def __call__(self, segment: Segment) -> Measured:
        self.segments.append(segment)
        failures = {"timeout": 3} if self.dead else {}
        return measured(segment, [Interval(sent=3, done=0 if self.dead else 3, failures=failures)])

    def judge(self, pooled: Sequence[Measured]) -> tuple[Verdict, str]:
        assert len({one.segment.rate for one in pooled}) == 1
        self.judged.append(len(pooled))
        return self._says(rate_of(pooled[0].segment)), "said so"


def rate_of(segment: Segment) -> float:
    assert segment.rate is not None
    return segment.rate[0]


def by_the_objective(pooled: Sequence[Measured]) -> tuple[Verdict, str]:
    return holds(pooled, OBJECTIVES)


def search(
    judge: Judge,
    *,
    start: float = 20.0,
    most: float = 4000.0,
    seconds: float = 30.0,
    bottleneck: Callable[[Sequence[Measured]], str | None] = lambda _: None,
    few: Callable[[Sequence[Measured]], Few | None] = lambda _: None,
) -> Shape:
    return Search(
        judge, few, bottleneck, objective="p99=100ms", start=start, most=most, precision=0.05, seconds=seconds
    ).shape()


def found(shape: Shape, server: Callable[[Segment], Measured]) -> Capacity:
    try:
        segment = next(shape)
        while True:
            segment = shape.send(server(segment))
    except StopIteration as finished:
        capacity = finished.value
    assert isinstance(capacity, Capacity)
    return capacity


def asked(server: Queue | Scripted, what: str) -> list[float]:
    """The rates of the segments that are called so."""
    return [rate_of(segment) for segment in server.segments if segment.name.startswith(what)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("start", [20.0, 1000.0])
def test_the_capacity_of_a_queue_is_found_from_below_and_from_above(seed: int, start: float) -> None:
    server = Queue(seed)
    capacity = found(search(by_the_objective, start=start), server)
    assert capacity.rate == pytest.approx(TRUTH, rel=0.1)
    assert capacity.confirmed >= 2
    assert capacity.limited_by == "server"
    assert len(capacity.probes) <= 20


@pytest.mark.parametrize("seed", range(6))
def test_a_server_that_stalls_now_and_then_is_not_taken_for_one_that_holds_far_less(seed: int) -> None:
    capacity = found(search(by_the_objective, seconds=15.0), Queue(seed, stalls=330.0))
    assert capacity.rate == pytest.approx(TRUTH, rel=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_stays_slow_after_an_overload_gets_its_rest(seed: int) -> None:
    capacity = found(search(by_the_objective), Queue(seed, sick=1.0))
    assert capacity.rate == pytest.approx(TRUTH, rel=0.12)


def test_each_failing_try_is_followed_by_little_load_until_nothing_is_left() -> None:
    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")
    capacity = found(search(server.judge), server)
    names = [segment.name for segment in server.segments]
    failed = {segment for probe in capacity.probes if probe.verdict == "fails" for segment in probe.segments}
    assert failed == {number - 1 for number, name in enumerate(names) if name == "recover"}


def test_requests_that_always_overlap_are_no_backlog() -> None:
    """Where each takes long, some are always in flight, and in time."""
    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")

    def slow(segment: Segment) -> Measured:
        one = server(segment)
        one.intervals["query"][-1].in_flight = 30
        return one

    found(search(server.judge), slow)
    names = [segment.name for segment in server.segments]
    assert not any(one == other == "recover" for one, other in pairwise(names))


def test_a_rest_is_little_load_for_the_least_that_was_tried() -> None:
    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")
    found(search(server.judge, start=640.0), server)
    assert asked(server, "recover")[:5] == pytest.approx([64.0, 32.0, 16.0, 8.0, 4.0])
    assert set(asked(server, "recover")[5:]) == {4.0}


def test_a_try_begins_with_a_fifth_that_does_not_count() -> None:
    server = Scripted(lambda rate: "holds")
    found(search(server.judge, seconds=30.0), server)
    assert {(segment.seconds, segment.settle) for segment in server.segments} == {(36.0, 6.0)}


def test_a_backlog_is_waited_for() -> None:
    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")
    backlog = [900, 300, 40, 1]

    def slow(segment: Segment) -> Measured:
        one = server(segment)
        if segment.name == "recover" and backlog:
            one.intervals["query"][-1].in_flight = backlog.pop(0)
        return one

    def judge(measured: Sequence[Measured]) -> tuple[Verdict, str]:
        behind = measured[-1].intervals["query"][-1].in_flight > 2
        return ("fails", "it is behind") if behind else server.judge(measured)

    found(search(judge), slow)
    first = [segment.name for segment in server.segments].index("recover")
    assert [segment.name == "recover" for segment in server.segments[first : first + 5]] == [True] * 4 + [
        False
    ]


def test_what_is_found_lies_within_the_precision_of_what_fails() -> None:
    server = Scripted(lambda rate: "holds" if rate <= 137 else "fails")
    capacity = found(search(server.judge), server)
    assert capacity.fails_at is not None
    assert capacity.rate <= 137 < capacity.fails_at <= capacity.rate * 1.05
    assert (capacity.confirmed, capacity.tries) == (3, 3)


def test_a_server_that_always_fails_has_none_and_is_not_asked_for_ever() -> None:
    server = Scripted(lambda rate: "fails")
    capacity = found(search(server.judge, start=64.0), server)
    assert capacity.rate == 0.0
    assert capacity.fails_at == min(asked(server, "probe")) == 1.0
    assert (capacity.confirmed, capacity.tries) == (0, 0)
    assert len(capacity.probes) == 7


def test_a_server_that_never_fails_is_limited_by_the_range() -> None:
    server = Scripted(lambda rate: "holds")
    capacity = found(search(server.judge, start=30.0, most=100.0), server)
    assert (capacity.rate, capacity.fails_at, capacity.limited_by) == (100.0, None, "range")
    assert asked(server, "probe") == [30.0, 60.0, 100.0]
    assert asked(server, "confirm") == [100.0] * 3


def test_where_the_harness_is_the_limit_the_search_stops_and_says_so() -> None:
    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")
    capacity = found(search(server.judge, bottleneck=lambda _: "process 1 was busy"), server)
    assert (capacity.rate, capacity.fails_at, capacity.limited_by) == (40.0, 80.0, "harness")
    assert asked(server, "probe") == [20.0, 40.0, 80.0]
    assert asked(server, "again") == [80.0]
    assert [probe.why for probe in capacity.probes if probe.verdict == "fails"] == ["process 1 was busy"] * 2


def test_a_harness_that_is_late_once_is_not_the_limit() -> None:
    """The server is asked again, and what it says then is what counts."""
    late = iter(["process 1 was late"])

    def judge(pooled: Sequence[Measured]) -> tuple[Verdict, str]:
        spoilt = server.segments[-1].name == "probe 40/s"
        return ("fails", "said so") if spoilt else server.judge(pooled)

    server = Scripted(lambda rate: "holds" if rate <= 50 else "fails")
    capacity = found(search(judge, bottleneck=lambda _: next(late, None)), server)
    assert capacity.limited_by == "server"
    assert capacity.fails_at is not None
    assert 50 / 1.05 <= capacity.rate <= 50 < capacity.fails_at
    assert [(probe.verdict, probe.why) for probe in capacity.probes if probe.rate == 40.0] == [
        ("fails", "process 1 was late"),
        ("holds", "said so"),
    ]


def test_a_busy_harness_does_not_matter_while_the_objective_holds() -> None:
    server = Scripted(lambda rate: "holds")
    capacity = found(search(server.judge, bottleneck=lambda _: "process 1 was busy"), server)
    assert capacity.limited_by == "range"


def test_an_unclear_rate_is_asked_again_and_judged_by_all_its_tries() -> None:
    server = Scripted(lambda rate: "unclear" if rate >= 80 else "holds")
    capacity = found(search(server.judge, most=80.0), server)
    unclear = next(probe for probe in capacity.probes if probe.rate == 80.0)
    assert unclear.verdict == "unclear"
    assert [server.segments[number].name for number in unclear.segments] == [
        "probe 80/s",
        "again 80/s",
        "again 80/s",
    ]
    assert server.judged[2:5] == [1, 2, 3]
    assert capacity.rate < 80.0 == capacity.fails_at


def test_probes_name_the_segments_that_they_are_made_of() -> None:
    server = Queue(1)
    capacity = found(search(by_the_objective), server)
    for probe in capacity.probes:
        assert {rate_of(server.segments[number]) for number in probe.segments} == {probe.rate}
    named = [number for probe in capacity.probes for number in probe.segments]
    others = [segment.name for number, segment in enumerate(server.segments) if number not in named]
    assert named == sorted(set(named))
    assert set(others) == {"recover"}


class Slow:
    """Answers `capacity` requests a second, each in no time; what comes beyond fails the try.

    Of ten requests `share` are of the flow that is judged.
    """

    def __init__(self, capacity: float, share: float = 1.0) -> None:
        self._capacity, self._share = capacity, share
        self.segments: list[Segment] = []

    def __call__(self, segment: Segment) -> Measured:
        self.segments.append(segment)
        replies = round(rate_of(segment) * (segment.seconds - segment.settle) * self._share)
        return measured(segment, [Interval(sent=replies, done=replies)])

    def judge(self, pooled: Sequence[Measured]) -> tuple[Verdict, str]:
        if rate_of(pooled[0].segment) > self._capacity:
            return "fails", "too much"
        return ("unclear", "few") if self.few(pooled) else ("holds", "")

    def few(self, pooled: Sequence[Measured]) -> Few | None:
        replies = sum(one.intervals["query"][0].done for one in pooled)
        return Few(replies, ENOUGH_REPLIES) if replies < ENOUGH_REPLIES else None


def counted(server: Slow) -> dict[float, float]:
    """By rate, the seconds that count in its longest row of tries."""
    found: dict[float, float] = {}
    row, before = 0.0, 0.0
    for segment in server.segments:
        rate = rate_of(segment)
        row = (row if rate == before and "more" in segment.name else 0.0) + segment.seconds - segment.settle
        before, found[rate] = rate, max(row, found.get(rate, 0.0))
    return found


@pytest.mark.parametrize(("capacity", "share"), [(2.7, 1.0), (1.5, 1.0), (25.0, 0.1)])
def test_a_server_of_few_requests_a_second_is_tried_as_long_as_a_verdict_takes(
    capacity: float, share: float
) -> None:
    server = Slow(capacity, share)
    result = found(search(server.judge, start=10.0, seconds=15.0, few=server.few), server)
    assert result.fails_at is not None
    assert result.rate <= capacity < result.fails_at <= result.rate * 1.05
    assert (result.confirmed, result.tries, result.limited_by) == (3, 3, "server")
    confirming = [one for one in server.segments if one.name.startswith("confirm")]
    # They are long enough by themselves, for whoever judges the run by them.
    assert all(server.few([server(one)]) is None for one in confirming)
    assert max(counted(server).values()) <= 20 * 15.0


def test_what_fails_clearly_is_not_tried_for_longer() -> None:
    server = Slow(2.7)
    result = found(search(server.judge, start=10.0, seconds=15.0, few=server.few), server)
    failed = [number for probe in result.probes if probe.verdict == "fails" for number in probe.segments]
    assert {server.segments[number].seconds for number in failed} == {18.0}


def test_a_server_that_is_too_slow_for_its_tries_is_not_said_to_hold_nothing() -> None:
    server = Slow(0.4)
    result = found(search(server.judge, start=10.0, seconds=15.0, few=server.few), server)
    assert (result.rate, result.fails_at, result.limited_by) == (0.0, 0.625, "replies")
    last = result.probes[-1]
    assert (last.rate, last.verdict) == (0.3125, "unclear")
    assert last.why == "too few replies (5 of 200): give --seconds 37"
    longer = found(search(server.judge, start=10.0, seconds=37.0, few=server.few), server)
    assert longer.rate == pytest.approx(0.4, rel=0.05)


def test_a_search_that_begins_too_low_for_a_verdict_says_so_too() -> None:
    server = Slow(1000.0, 0.0)
    result = found(search(server.judge, start=10.0, seconds=15.0, few=server.few), server)
    assert (result.rate, result.fails_at, result.limited_by) == (0.0, None, "replies")
    [only] = result.probes
    assert only.why == "too few replies (0 of 200): give --seconds 27 or a higher --start"


def test_the_capacity_of_a_slow_queue_is_found_by_an_objective() -> None:
    objectives = read_objectives("p99=5s")
    server = Queue(2, served=3.0)
    capacity = found(
        search(
            lambda pooled: holds(pooled, objectives),
            start=10.0,
            seconds=15.0,
            few=lambda pooled: too_few(pooled, objectives),
        ),
        server,
    )
    # 3 - ln(100) / 5, seen through some hundred replies that wait for one another.
    assert capacity.rate == pytest.approx(2.08, rel=0.25)
    assert capacity.limited_by == "server"


def test_a_rate_that_held_by_chance_is_not_found() -> None:
    tried: dict[float, int] = {}

    def lucky(rate: float) -> Verdict:
        tried[rate] = tried.get(rate, 0) + 1
        return "holds" if rate <= 37 or (rate <= 40 and tried[rate] == 1) else "fails"

    server = Scripted(lucky)
    capacity = found(search(server.judge, most=40.0), server)
    assert 33 < capacity.rate <= 37
    assert capacity.fails_at == 40.0 / 1.05
    assert capacity.confirmed == 3


@pytest.mark.parametrize("by_chance", [40.0, (80.0 * 160.0) ** 0.5])
def test_a_rate_that_failed_by_chance_gets_a_second_look(by_chance: float) -> None:
    tried: dict[float, int] = {}

    def unlucky(rate: float) -> Verdict:
        tried[rate] = tried.get(rate, 0) + 1
        return "fails" if rate > 137 or (rate == by_chance and tried[rate] == 1) else "holds"

    server = Scripted(unlucky)
    capacity = found(search(server.judge), server)
    assert tried[by_chance] == 2
    assert tried[160.0] == 1
    assert capacity.fails_at is not None
    assert capacity.rate <= 137 < capacity.fails_at <= capacity.rate * 1.05


def test_unclear_confirms_only_what_has_held_before() -> None:
    def blurred(rate: float) -> Verdict:
        confirming = server.segments[-1].name.startswith("confirm")
        if rate == 40.0:
            return "fails" if confirming else "holds"
        return "unclear" if rate > 37 else "holds"

    server = Scripted(blurred)
    capacity = found(search(server.judge, most=40.0), server)
    assert capacity.rate <= 37

    calm = Scripted(lambda rate: "unclear" if calm.segments[-1].name.startswith("confirm") else "holds")
    assert found(search(calm.judge, most=40.0), calm).rate == 40.0


def test_where_nothing_can_be_confirmed_the_best_that_held_is_left_unconfirmed() -> None:
    def fickle(rate: float) -> Verdict:
        return "fails" if rate > 100 or server.segments[-1].name.startswith("confirm") else "holds"

    server = Scripted(fickle)
    capacity = found(search(server.judge), server)
    confirming = asked(server, "confirm")
    assert capacity.fails_at == min(confirming)
    assert capacity.rate == max(rate for rate in asked(server, "probe") if rate < min(confirming))
    assert (capacity.confirmed, capacity.tries) == (0, 0)
    lowered = list(dict.fromkeys(confirming))
    factors = [higher / lower for higher, lower in pairwise(lowered)]
    assert factors == pytest.approx([1.05, 1.05**2, 1.05**4])


def test_a_server_that_does_not_come_back_ends_the_search() -> None:
    def deadly(rate: float) -> Verdict:
        server.dead = server.dead or rate > 100
        return "fails" if server.dead else "holds"

    server = Scripted(deadly)
    capacity = found(search(server.judge), server)
    assert capacity.rate == 80.0
    assert (capacity.fails_at, capacity.confirmed, capacity.tries) == (160.0, 0, 0)
    assert capacity.probes[-1].why == "said so; after it the server did not come back"
    assert len(asked(server, "recover")) == 10


def test_a_rest_in_which_nothing_was_due_by_chance_is_none() -> None:
    """Of a server that is dead it would otherwise be thought that it had come back."""

    def deadly(rate: float) -> Verdict:
        server.dead = server.dead or rate > 2
        return "fails" if server.dead else "holds"

    def seldom(segment: Segment) -> Measured:
        one = server(segment)
        if segment.name == "recover" and len(asked(server, "recover")) % 3:
            one.intervals["query"] = [Interval()]
        return one

    server = Scripted(deadly)
    capacity = found(search(server.judge, start=2.0), seldom)
    assert (capacity.rate, capacity.fails_at) == (2.0, 4.0)
    assert capacity.probes[-1].why == "said so; after it the server did not come back"
    assert len(asked(server, "recover")) == 10


def test_a_server_that_dies_while_it_is_confirmed_confirms_nothing() -> None:
    def deadly(rate: float) -> Verdict:
        server.dead = server.dead or server.segments[-1].name.startswith("confirm 2")
        return "fails" if server.dead else "holds"

    server = Scripted(deadly)
    capacity = found(search(server.judge, most=40.0), server)
    assert (capacity.rate, capacity.confirmed, capacity.tries) == (40.0, 1, 2)
    assert server.segments[-1].name == "recover"
