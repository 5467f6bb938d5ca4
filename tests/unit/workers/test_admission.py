"""Which batches a full worker takes, and from whom."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable

import pytest

from workers.admission import (
    ALONE_SECONDS,
    GRACE_SECONDS,
    LONGEST_WAIT,
    SHORTEST_WAIT,
    SOONER,
    Admission,
    Stay,
)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(100, clock)


def enter(admission: Admission, caller: str, items: int, priority: int = 1) -> Stay:
    stay = admission.enter(caller, priority, items)
    assert isinstance(stay, Stay)
    return stay


def refused(admission: Admission, caller: str, items: int, priority: int = 1) -> float:
    seconds = admission.enter(caller, priority, items)
    assert not isinstance(seconds, Stay)
    return seconds


def test_it_holds_no_more_than_its_limit(admission: Admission) -> None:
    enter(admission, "a", 60)
    stay = enter(admission, "b", 40)
    assert admission.items == 100
    refused(admission, "a", 1)
    admission.leave(stay)
    assert admission.items == 60
    enter(admission, "a", 40)


def test_a_batch_larger_than_the_limit_is_taken_alone(admission: Admission) -> None:
    stay = enter(admission, "a", 10)
    refused(admission, "b", 1000)
    # And nothing comes before it meanwhile.
    refused(admission, "a", 10)
    admission.leave(stay)
    enter(admission, "b", 1000)


def test_bulk_that_fills_it_keeps_no_query_out(admission: Admission) -> None:
    enter(admission, "a", 100, priority=1)
    refused(admission, "b", 1, priority=1)
    enter(admission, "b", 100, priority=0)
    refused(admission, "b", 1, priority=0)


def test_room_is_kept_for_who_was_refused_first(admission: Admission) -> None:
    stay = enter(admission, "a", 100)
    refused(admission, "b", 50)
    refused(admission, "c", 50)
    admission.leave(stay)
    enter(admission, "d", 1)
    refused(admission, "a", 1)
    # Asking again costs no turn, and a turn is for one batch.
    enter(admission, "c", 49)
    enter(admission, "b", 50)
    refused(admission, "b", 50)


def test_a_turn_that_was_taken_keeps_nothing_any_more(admission: Admission) -> None:
    stay = enter(admission, "a", 100)
    refused(admission, "b", 50)
    admission.leave(stay)
    enter(admission, "b", 50)
    enter(admission, "c", 50)


def test_room_is_not_kept_for_ever(admission: Admission, clock: Clock) -> None:
    stay = enter(admission, "a", 100)
    seconds = refused(admission, "gone", 50)
    admission.leave(stay)
    enter(admission, "a", 50)
    clock.now += seconds + GRACE_SECONDS / 2
    refused(admission, "a", 50)
    clock.now += GRACE_SECONDS
    enter(admission, "a", 50)


def test_it_says_when_there_should_be_room(admission: Admission, clock: Clock) -> None:
    for _ in range(4):
        enter(admission, "a", 25)
    assert refused(admission, "b", 25) == SHORTEST_WAIT
    # Where they stay for 0.8 s, a quarter leaves every 0.2 s.
    stay = enter(admission, "a", 1, priority=2)
    clock.now += 0.8
    admission.leave(stay)
    for _ in range(4):
        enter(admission, "a", 25, priority=2)
    assert refused(admission, "b", 25, priority=2) == pytest.approx(SOONER * 0.2)
    assert refused(admission, "c", 50, priority=2) == pytest.approx(SOONER * 0.6)
    assert refused(admission, "d", 200, priority=2) == LONGEST_WAIT


class Routers:
    """Routers with work without end, and a worker that does one batch after another, in a time of their own.

    Each has four lanes. Of a batch that is refused it hears after the way back, and waits as it is told, or
    until one is done.
    """

    WAY = 0.0005

    def __init__(self, count: int, batch_seconds: float, *, items: int = 256, most: int = 2048) -> None:
        self.done: Counter[int] = Counter()
        self.in_vain = 0
        self.idle = 0.0
        self._now = 0.0
        self._seconds, self._items = batch_seconds, items
        self._admission = Admission(most, lambda: self._now)
        self._lanes = [4] * count
        self._paused = [0.0] * count
        self._waiting: deque[tuple[int, Stay]] = deque()
        self._idle_since: float | None = 0.0
        self._events: list[tuple[float, float, Callable[[], None]]] = []
        self._draw = random.Random("routers")
        for router in range(count):
            self._at(self._draw.random() / 100, lambda router=router: self._send(router))  # type: ignore[misc]

    def run(self, seconds: float) -> None:
        while self._now < seconds:
            self._now, _, event = heapq.heappop(self._events)
            event()

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, self._draw.random(), event))

    def _send(self, router: int) -> None:
        while self._lanes[router] and self._paused[router] <= self._now:
            self._lanes[router] -= 1
            self._at(self._now + self.WAY, lambda: self._arrives(router))

    def _arrives(self, router: int) -> None:
        stay = self._admission.enter(str(router), 1, self._items)
        if isinstance(stay, Stay):
            self._waiting.append((router, stay))
            if self._idle_since is not None:
                self.idle += self._now - self._idle_since
                self._begin()
        else:
            self.in_vain += 1
            seconds = stay
            self._at(self._now + self.WAY, lambda: self._refused(router, seconds))

    def _refused(self, router: int, seconds: float) -> None:
        self._lanes[router] += 1
        if self._paused[router] <= self._now:
            self._paused[router] = self._now + seconds
            self._at(self._paused[router], lambda: self._send(router))

    def _begin(self) -> None:
        self._idle_since = None
        self._at(self._now + self._seconds, self._end)

    def _end(self) -> None:
        router, stay = self._waiting.popleft()
        self._admission.leave(stay)
        self.done[router] += 1
        self._at(self._now + self.WAY, lambda: self._freed(router))
        if self._waiting:
            self._begin()
        else:
            self._idle_since = self._now

    def _freed(self, router: int) -> None:
        self._lanes[router] += 1
        self._paused[router] = 0.0
        self._send(router)


@pytest.mark.parametrize("batch_seconds", [0.03, 0.2])
@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
def test_routers_at_a_full_worker_get_equal_shares_of_it(count: int, batch_seconds: float) -> None:
    routers = Routers(count, batch_seconds)
    routers.run(2000 * batch_seconds)
    shares = [routers.done[router] for router in range(count)]
    assert min(shares) >= 0.9 * max(shares), shares
    assert routers.idle < 0.05
    # Were they not told when to come, 16 routers would send 150 in vain for each that is done.
    assert routers.in_vain <= 20 * sum(shares), (routers.in_vain, shares)


def test_a_batch_that_is_to_be_alone_has_the_worker_to_itself(admission: Admission) -> None:
    stay = admission.enter("a", 1, 1, alone=True)
    assert isinstance(stay, Stay)
    for caller in ("a", "b"):
        for priority in (0, 1):
            refused(admission, caller, 1, priority)
    assert not isinstance(admission.enter("b", 1, 1, alone=True), Stay)
    admission.leave(stay)
    enter(admission, "b", 1)


def test_a_worker_empties_itself_for_a_batch_that_is_to_be_alone(admission: Admission, clock: Clock) -> None:
    stay = enter(admission, "b", 5)
    assert not isinstance(admission.enter("a", 1, 1, alone=True), Stay)
    refused(admission, "b", 1)
    admission.leave(stay)
    refused(admission, "b", 1)
    assert isinstance(admission.enter("a", 1, 1, alone=True), Stay)


def test_what_is_long_in_the_worker_does_not_close_it_to_others(admission: Admission, clock: Clock) -> None:
    """The batch that is to be alone and all others take turns."""
    enter(admission, "b", 5)
    for _ in range(3):
        assert not isinstance(admission.enter("a", 1, 1, alone=True), Stay)
        refused(admission, "b", 1, 0)
        clock.now += ALONE_SECONDS
        assert not isinstance(admission.enter("a", 1, 1, alone=True), Stay)
        admission.leave(enter(admission, "b", 1, 0))
        clock.now += ALONE_SECONDS
