"""The state of one replica: pauses, and whether its process has died."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.unit.router.apps import info
from tests.unit.router.items import make_request
from triptych.router.items import Batch, Priority
from triptych.router.pool.replica import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Replica


@pytest.fixture
def replica() -> Replica:
    """A ready replica."""
    ready = Replica("r:1", "retrieval", 4)
    ready.up(info("retrieval"))
    return ready


def test_joint_refusals_pause_once(replica: Replica) -> None:
    """Pauses stay short and are random, or several routers would ask in step."""
    now, pauses = 10.0, set()
    for _ in range(100):
        replica.pause(Priority.INTERACTIVE, None, now)
        until = replica.next_end(now)
        assert PAUSE_SECONDS - 1e-9 <= until - now <= 2 * PAUSE_SECONDS + 1e-9
        assert not replica.has_free_lane(now)
        replica.pause(Priority.INTERACTIVE, None, now + PAUSE_SECONDS / 2)
        assert replica.next_end(now) == until
        assert replica.has_free_lane(until)
        pauses.add(round(until - now, 6))
        now = until
    assert len(pauses) > 10


def test_pause_is_as_asked_but_bounded(replica: Replica) -> None:
    replica.pause(Priority.INTERACTIVE, 0.3, 10.0)
    assert replica.next_end(10.0) == 10.3
    replica.pause(Priority.INTERACTIVE, 1e9, 20.0)
    assert replica.next_end(20.0) == 20 + LONGEST_PAUSE_SECONDS


def test_success_ends_the_pause(replica: Replica) -> None:
    for priority in Priority:
        replica.pause(priority, 0.3, 10.0)
    replica.record_answer(Batch(make_request([1], bulk=True).items), 1, 0.1)
    assert replica.has_free_lane(10.0, Priority.BULK)
    assert not replica.has_free_lane(10.0)


@pytest.mark.parametrize(
    ("verdict", "died"),
    [
        (lambda replica: replica.down("/ready answers 503"), False),
        (lambda replica: replica.remove(), False),
        (lambda replica: replica.up(info("retrieval")), False),
        (lambda replica: replica.down("connection refused", gone=True), True),
        (lambda replica: replica.up(replace(info("retrieval"), instance="another")), True),
    ],
    ids=["stopping", "removed", "alive", "gone", "restarted"],
)
async def test_lost_connection_alone_is_no_death(
    replica: Replica, verdict: Callable[[Replica], None], died: bool
) -> None:
    replica.suspect("the connection is lost")
    judged = asyncio.create_task(replica.has_died(info("retrieval").instance))
    await asyncio.sleep(0)
    assert not judged.done()
    verdict(replica)
    assert await judged is died
