"""Admission: which batches a full worker accepts, and from which router."""

import heapq
import random

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


def enter(admission: Admission, caller: str, items: int, priority: int = 1, **alone: bool) -> Stay:
    stay = admission.enter(caller, priority, items, **alone)
    assert isinstance(stay, Stay)
    return stay


def refused(admission: Admission, caller: str, items: int, priority: int = 1, **alone: bool) -> float:
    seconds = admission.enter(caller, priority, items, **alone)
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


def simulate(count: int, batch_seconds: float) -> tuple[list[int], int, float]:
    """Routers with endless work, and a worker that encodes one batch of 256 items after another.

    Each router has four lanes. After a refusal it waits as long as it is told, or until one of its batches is
    done. Returns the finished batches of each router, the refusals, and the seconds without work.
    """
    clock, network_seconds, lanes = Clock(), 0.0005, 4
    admission = Admission(2048, clock)
    draw = random.Random("routers")
    end = clock.now + 2000 * batch_seconds
    events: list[tuple[float, int, Stay | None]] = [
        (clock.now + draw.random() / 100, lane, None) for lane in range(lanes * count)
    ]
    heapq.heapify(events)
    done, paused = [0] * count, [0.0] * count
    refusals, idle, busy_until = 0, 0.0, clock.now
    while clock.now < end:
        clock.now, lane, stay = heapq.heappop(events)
        router, again = lane // lanes, clock.now + 2 * network_seconds
        if stay is not None:
            admission.leave(stay)
            done[router] += 1
            paused[router] = 0.0
        elif clock.now < paused[router]:
            again = paused[router]
        elif isinstance(answer := admission.enter(str(router), 1, 256), Stay):
            idle += max(0.0, clock.now - busy_until)
            again = busy_until = max(busy_until, clock.now) + batch_seconds
            heapq.heappush(events, (again, lane, answer))
            continue
        else:
            refusals += 1
            again += answer
            paused[router] = clock.now + answer
        heapq.heappush(events, (again, lane, None))
    return done, refusals, idle


@pytest.mark.parametrize("batch_seconds", [0.03, 0.2])
@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
def test_routers_get_equal_shares(count: int, batch_seconds: float) -> None:
    shares, refusals, idle = simulate(count, batch_seconds)
    assert min(shares) >= 0.9 * max(shares), shares
    assert idle < 0.05
    # With the shortest wait always, 16 routers would be refused more often.
    assert refusals <= 6 * sum(shares), (refusals, shares)
