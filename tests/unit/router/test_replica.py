"""What one replica is given, by what it did before."""

import pytest

from router.replica import PAUSE_SECONDS, Replica
from tests.unit.router.apps import info


@pytest.fixture
def replica() -> Replica:
    """One that is ready."""
    ready = Replica("r:1", "retrieval", 4, None)  # type: ignore[arg-type]
    ready.up(info("retrieval"))
    return ready


def test_batches_that_are_refused_together_pause_it_once(replica: Replica) -> None:
    replica.pause(10.0)
    until = replica.paused_until
    assert 10 + PAUSE_SECONDS <= until <= 10 + 2 * PAUSE_SECONDS
    assert not replica.has_free_lane(10.0)
    for _ in range(3):
        replica.pause(10.0 + PAUSE_SECONDS / 2)
    assert replica.paused_until == until
    assert replica.has_free_lane(until)


def test_however_often_it_is_overloaded_it_is_asked_again_soon(replica: Replica) -> None:
    """Or other routers, which have lanes of it, would get all of it for good."""
    now = 10.0
    for _ in range(20):
        replica.pause(now)
        assert replica.paused_until - now <= 2 * PAUSE_SECONDS
        now = replica.paused_until


def test_routers_do_not_ask_in_step(replica: Replica) -> None:
    pauses = set()
    for now in range(100):
        replica.pause(now)
        pauses.add(round(replica.paused_until - now, 6))
    assert len(pauses) > 10
