"""Admission: which batches a full worker accepts, and from which router."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable

import pytest

from triptych.workers.admission import (
    ALONE_SECONDS,
    EARLY,
    GRACE_SECONDS,
    LONGEST_WAIT,
    SHORTEST_WAIT,
    Admission,
    Stay,
)


class Clock:
    """Time stands still until a test sets it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(100, clock)


def enter(admission: Admission, caller: str, items: int, priority: int = 1, *, alone: bool = False) -> Stay:
    stay = admission.enter(caller, priority, items, alone=alone)
    assert isinstance(stay, Stay)
    return stay


def refused(
    admission: Admission, caller: str, items: int, priority: int = 1, *, alone: bool = False
) -> float:
    seconds = admission.enter(caller, priority, items, alone=alone)
    assert not isinstance(seconds, Stay)
    return seconds


def test_items_are_limited(admission: Admission) -> None:
    enter(admission, "a", 60)
    stay = enter(admission, "b", 40)
    assert admission.items == 100
    refused(admission, "a", 1)
    admission.leave(stay)
    assert admission.items == 60
    enter(admission, "a", 40)


def test_batch_over_limit_is_accepted_alone(admission: Admission) -> None:
    stay = enter(admission, "a", 10)
    refused(admission, "b", 1000)
    # It has a reservation.
    refused(admission, "a", 10)
    admission.leave(stay)
    enter(admission, "b", 1000)


def test_priorities_have_separate_limits(admission: Admission) -> None:
    for priority in (1, 0):
        enter(admission, "a", 100, priority)
        refused(admission, "b", 1, priority)


def test_room_is_reserved_in_order(admission: Admission) -> None:
    stay = enter(admission, "a", 100)
    refused(admission, "b", 50)
    refused(admission, "c", 50)
    admission.leave(stay)
    enter(admission, "d", 1)
    refused(admission, "a", 1)
    # Asking again keeps the reservation, which is for one batch.
    enter(admission, "c", 49)
    enter(admission, "b", 50)
    refused(admission, "b", 50)


def test_reservation_expires(admission: Admission, clock: Clock) -> None:
    stay = enter(admission, "a", 100)
    seconds = refused(admission, "gone", 50)
    admission.leave(stay)
    enter(admission, "a", 50)
    clock.now += seconds + GRACE_SECONDS / 2
    refused(admission, "a", 50)
    clock.now += GRACE_SECONDS
    enter(admission, "a", 50)


def test_wait_follows_recent_stays(admission: Admission, clock: Clock) -> None:
    for _ in range(4):
        enter(admission, "a", 25)
    assert refused(admission, "b", 25) == SHORTEST_WAIT
    # If batches stay for 0.8 s, a quarter of the items leaves every 0.2 s.
    stay = enter(admission, "a", 1, priority=2)
    clock.now += 0.8
    admission.leave(stay)
    for _ in range(4):
        enter(admission, "a", 25, priority=2)
    assert refused(admission, "b", 25, priority=2) == pytest.approx(EARLY * 0.2)
    assert refused(admission, "c", 50, priority=2) == pytest.approx(EARLY * 0.6)
    assert refused(admission, "d", 200, priority=2) == LONGEST_WAIT


def test_alone_batch_has_the_worker_to_itself(admission: Admission) -> None:
    stay = enter(admission, "a", 1, alone=True)
    for caller in ("a", "b"):
        for priority in (0, 1):
            refused(admission, caller, 1, priority)
    refused(admission, "b", 1, alone=True)
    admission.leave(stay)
    enter(admission, "b", 1)


def test_worker_drains_for_alone_batch(admission: Admission) -> None:
    stay = enter(admission, "b", 5)
    refused(admission, "a", 1, alone=True)
    refused(admission, "b", 1)
    admission.leave(stay)
    refused(admission, "b", 1)
    enter(admission, "a", 1, alone=True)


def test_draining_alternates_with_others(admission: Admission, clock: Clock) -> None:
    """A batch that stays long does not keep all others out."""
    enter(admission, "b", 5)
    for _ in range(3):
        refused(admission, "a", 1, alone=True)
        refused(admission, "b", 1, 0)
        clock.now += ALONE_SECONDS
        refused(admission, "a", 1, alone=True)
        admission.leave(enter(admission, "b", 1, 0))
        clock.now += ALONE_SECONDS


class Routers:
    """Simulates routers with endless work, and a worker that encodes one batch after another.

    Each router has four lanes. After a refusal it waits as long as it is told, or until one of its batches is
    done.
    """

    NETWORK_SECONDS = 0.0005

    def __init__(self, count: int, batch_seconds: float, *, items: int = 256, limit: int = 2048) -> None:
        self.done: Counter[int] = Counter()
        self.refusals = 0
        self.idle = 0.0
        self._now = 0.0
        self._seconds, self._items = batch_seconds, items
        self._admission = Admission(limit, lambda: self._now)
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
            self._at(self._now + self.NETWORK_SECONDS, lambda: self._arrives(router))

    def _arrives(self, router: int) -> None:
        stay = self._admission.enter(str(router), 1, self._items)
        if isinstance(stay, Stay):
            self._waiting.append((router, stay))
            if self._idle_since is not None:
                self.idle += self._now - self._idle_since
                self._begin()
        else:
            self.refusals += 1
            seconds = stay
            self._at(self._now + self.NETWORK_SECONDS, lambda: self._refused(router, seconds))

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
        self._at(self._now + self.NETWORK_SECONDS, lambda: self._freed(router))
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
def test_routers_get_equal_shares(count: int, batch_seconds: float) -> None:
    routers = Routers(count, batch_seconds)
    routers.run(2000 * batch_seconds)
    shares = [routers.done[router] for router in range(count)]
    assert min(shares) >= 0.9 * max(shares), shares
    assert routers.idle < 0.05
    # Without a wait, 16 routers would be refused 150 times for each batch that is done.
    assert routers.refusals <= 20 * sum(shares), (routers.refusals, shares)
