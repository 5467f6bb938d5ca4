"""The capacity search, on queues of known capacity and on scripted servers."""

import math
import random
from collections.abc import Callable, Sequence

import pytest

from triptych.loadtests.capacity import Search
from triptych.loadtests.histogram import bucket
from triptych.loadtests.objectives import read_objectives
from triptych.loadtests.results import Capacity, Interval, Measured, Segment, Verdict
from triptych.loadtests.slo import Ruling, rule

SERVED_A_SECOND = 200.0
# The p99 of an M/M/1 queue is ln(100) / (served - arriving); the objective is 100 ms.
TRUTH = SERVED_A_SECOND - math.log(100) / 0.1

Judge = Callable[[Sequence[Measured]], Ruling]
Server = Callable[[Segment], Measured]


def measured(segment: Segment, intervals: list[Interval], interval: float = 0.5) -> Measured:
    return Measured(
        segment=segment, began=0.0, interval=interval, intervals={"query": intervals}, processes=[]
    )


class Queue:
    """An M/M/1 queue. About every `stalls` seconds it stops for one second."""

    INTERVAL = 0.5

    def __init__(self, seed: int, *, stalls: float = math.inf) -> None:
        self._random, self._stalls = random.Random(seed), stalls
        self._now = self._free = 0.0

    def __call__(self, segment: Segment) -> Measured:
        intervals = [Interval() for _ in range(round(segment.seconds / self.INTERVAL))]
        end, at, ends = self._now + segment.seconds, self._now, []
        while (at := at + self._random.expovariate(segment.rate)) < end:
            stalled = self._random.random() < 1 / (segment.rate * self._stalls)
            self._free = max(self._free, at) + self._random.expovariate(SERVED_A_SECOND) + stalled
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
        return measured(segment, intervals)


class Scripted:
    """Judges each rate as `says`. Answers at once, or with `dead` fails all; `in_flight` is left at the
    end."""

    def __init__(self, says: Callable[[float], Verdict]) -> None:
        self._says = says
        self.segments: list[Segment] = []
        self.judged: list[int] = []
        self.dead, self.in_flight = False, 0

    def __call__(self, segment: Segment) -> Measured:
        self.segments.append(segment)
        done, failures = (0, {"timeout": 3}) if self.dead else (3, {})
        return measured(segment, [Interval(sent=3, done=done, failures=failures, in_flight=self.in_flight)])

    def judge(self, pooled: Sequence[Measured]) -> Ruling:
        assert len({one.segment.rate for one in pooled}) == 1
        self.judged.append(len(pooled))
        return Ruling(self._says(pooled[0].segment.rate), "said so")

    def now(self, what: str) -> bool:
        """Whether the current segment is named so."""
        return self.segments[-1].name.startswith(what)

    def rates(self, what: str) -> list[float]:
        """Rates of the segments that are named so."""
        return [segment.rate for segment in self.segments if segment.name.startswith(what)]


def search(server: Server, judge: Judge, **changes: object) -> Capacity:
    usual = {"objective": "p99=100ms", "precision": 0.05, "seconds": 30.0, "requests": 0.0}
    usual |= {"start": 20.0, "most": 4000.0, "bottleneck": lambda _: None}
    shape = Search(judge=judge, **usual | changes).shape()  # type: ignore[arg-type]
    try:
        [segment] = next(shape)
        while True:
            [segment] = shape.send([server(segment)])
    except StopIteration as finished:
        capacity = finished.value
    assert isinstance(capacity, Capacity)
    return capacity


def found_by_objective(server: Queue, **changes: object) -> Capacity:
    objectives = read_objectives("p99=100ms")
    return search(server, lambda pooled: rule(pooled, objectives), **changes)


def below(limit: float) -> Callable[[float], Verdict]:
    return lambda rate: "holds" if rate <= limit else "fails"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("start", [20.0, 1000.0])
def test_capacity_of_queue_is_found(seed: int, start: float) -> None:
    capacity = found_by_objective(Queue(seed), start=start)
    assert capacity.rate == pytest.approx(TRUTH, rel=0.1)
    assert capacity.confirmed >= 2
    assert capacity.limited_by == "server"
    assert len(capacity.probes) <= 20


@pytest.mark.parametrize("seed", range(6))
def test_stalls_do_not_hide_the_capacity(seed: int) -> None:
    assert found_by_objective(Queue(seed, stalls=330.0), seconds=15.0).rate == pytest.approx(TRUTH, rel=0.12)


def test_result_is_within_precision_of_failure() -> None:
    server = Scripted(below(137))
    capacity = search(server, server.judge)
    assert capacity.fails_at is not None
    assert capacity.rate <= 137 < capacity.fails_at <= capacity.rate * 1.05
    assert (capacity.confirmed, capacity.tries) == (3, 3)
    assert {(one.seconds, one.settle) for one in server.segments if one.name != "recover"} == {(36.0, 6.0)}


def test_perfect_server_is_limited_by_the_range() -> None:
    server = Scripted(below(math.inf))
    # A busy harness does not matter while the objective holds.
    capacity = search(server, server.judge, start=30.0, most=100.0, bottleneck=lambda _: "busy")
    assert (capacity.rate, capacity.fails_at, capacity.limited_by) == (100.0, None, "range")
    assert server.rates("probe") == [30.0, 60.0, 100.0]
    assert server.rates("confirm") == [100.0] * 3


def test_recovery_waits_for_the_backlog() -> None:
    server, backlog = Scripted(below(50)), [900, 300, 40, 1]

    def slow(segment: Segment) -> Measured:
        server.in_flight = backlog.pop(0) if segment.name == "recover" and backlog else 0
        return server(segment)

    def judge(pooled: Sequence[Measured]) -> Ruling:
        behind = pooled[-1].intervals["query"][-1].in_flight > 2
        return Ruling("fails", "it is behind") if behind else server.judge(pooled)

    search(slow, judge)
    names = [segment.name for segment in server.segments]
    first = names.index("recover")
    assert [name == "recover" for name in names[first : first + 5]] == [True] * 4 + [False]


def test_harness_limit_ends_the_search() -> None:
    server = Scripted(below(50))
    capacity = search(server, server.judge, bottleneck=lambda _: "process 1 was busy")
    assert (capacity.rate, capacity.fails_at, capacity.limited_by) == (40.0, 80.0, "harness")
    assert server.rates("probe") == [20.0, 40.0, 80.0]
    assert server.rates("again") == [80.0]
    assert [probe.why for probe in capacity.probes if probe.verdict == "fails"] == ["process 1 was busy"] * 2


def test_unclear_rate_is_judged_by_three_tries() -> None:
    server = Scripted(lambda rate: "unclear" if rate >= 80 else "holds")
    capacity = search(server, server.judge, most=80.0)
    unclear = next(probe for probe in capacity.probes if probe.rate == 80.0)
    assert unclear.verdict == "unclear"
    names = [server.segments[index].name for index in unclear.segments]
    assert names == ["probe 80/s", "again 80/s", "again 80/s"]
    assert server.judged[2:5] == [1, 2, 3]
    assert capacity.rate < 80.0 == capacity.fails_at


def test_tries_last_until_there_are_enough_replies() -> None:
    server = Scripted(below(1.5))
    capacity = search(server, server.judge, start=10.0, seconds=15.0, requests=200)
    assert capacity.fails_at is not None
    assert capacity.rate <= 1.5 < capacity.fails_at <= capacity.rate * 1.05
    tries = [one for one in server.segments if one.name != "recover"]
    assert all(one.rate * (one.seconds - one.settle) >= 200 for one in tries)
    assert min(one.seconds - one.settle for one in tries) >= 15.0


def test_too_slow_server_has_no_result() -> None:
    server = Scripted(below(0.4))
    capacity = search(server, server.judge, start=10.0, seconds=15.0, requests=200)
    assert (capacity.rate, capacity.fails_at, capacity.limited_by) == (0.0, 1.25, "replies")
    assert (capacity.probes[-1].rate, capacity.probes[-1].verdict) == (0.625, "unclear")
    assert "--seconds 20" in capacity.probes[-1].why
    again = search(server, server.judge, start=10.0, seconds=41.0, requests=200)
    assert again.rate == pytest.approx(0.4, rel=0.05)


def test_rate_that_held_by_chance_is_not_confirmed() -> None:
    server = Scripted(below(37))

    def judge(pooled: Sequence[Measured]) -> Ruling:
        return Ruling("holds") if server.now("probe 40/s") else server.judge(pooled)

    capacity = search(server, judge, most=40.0)
    assert 33 < capacity.rate <= 37
    assert capacity.confirmed == 3


@pytest.mark.parametrize("met", [True, False])
def test_confirmation_holds_if_its_figures_meet_the_objective(met: bool) -> None:
    server = Scripted(below(40))

    def judge(pooled: Sequence[Measured]) -> Ruling:
        return Ruling("unclear", "close", met) if server.now("confirm") else server.judge(pooled)

    capacity = search(server, judge, most=40.0)
    assert (capacity.rate == 40.0, capacity.confirmed) == ((True, 3) if met else (False, 0))


@pytest.mark.parametrize("by_chance", [40.0, (80.0 * 160.0) ** 0.5])
def test_rate_that_failed_by_chance_is_tried_again(by_chance: float) -> None:
    tried: dict[float, int] = {}

    def unlucky(rate: float) -> Verdict:
        tried[rate] = tried.get(rate, 0) + 1
        return "fails" if rate > 137 or (rate == by_chance and tried[rate] == 1) else "holds"

    server = Scripted(unlucky)
    capacity = search(server, server.judge)
    assert (tried[by_chance], tried[160.0]) == (2, 1)
    assert capacity.fails_at is not None
    assert capacity.rate <= 137 < capacity.fails_at <= capacity.rate * 1.05


@pytest.mark.parametrize(("dies", "rate", "tries"), [("probe 80/s", 40.0, 0), ("confirm 2", 80.0, 2)])
def test_dead_server_ends_the_search(dies: str, rate: float, tries: int) -> None:
    def deadly(_: float) -> Verdict:
        server.dead = server.dead or server.now(dies)
        return "fails" if server.dead else "holds"

    server = Scripted(deadly)
    capacity = search(server, server.judge, most=80.0)
    assert (capacity.rate, capacity.tries) == (rate, tries)
    assert "did not come back" in capacity.probes[-1].why
    assert len(server.rates("recover")) == 10
