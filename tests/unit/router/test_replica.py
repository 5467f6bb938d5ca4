"""What one replica is given, by what it did before."""

import pytest

from router.items import Batch
from router.pool.replica import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Replica
from tests.unit.router.apps import info
from tests.unit.router.items import make_request


@pytest.fixture
def replica() -> Replica:
    """One that is ready."""
    ready = Replica("r:1", "retrieval", 4, None)  # type: ignore[arg-type]
    ready.up(info("retrieval"))
    return ready


def test_batches_that_are_refused_together_pause_it_once(replica: Replica) -> None:
    until = replica.pause(None, 10.0)
    assert 10 + PAUSE_SECONDS <= until <= 10 + 2 * PAUSE_SECONDS
    assert not replica.has_free_lane(10.0)
    for _ in range(3):
        assert replica.pause(None, 10.0 + PAUSE_SECONDS / 2) == until
    assert replica.has_free_lane(until)


def test_it_is_left_alone_for_as_long_as_it_says_and_not_for_ever(replica: Replica) -> None:
    assert replica.pause(0.3, 10.0) == 10.3
    assert replica.pause(1e9, 20.0) == 20 + LONGEST_PAUSE_SECONDS


async def test_a_batch_that_is_done_ends_the_pause_of_its_class(replica: Replica) -> None:
    async def done(*_: object) -> None: ...

    replica._encode = done  # type: ignore[method-assign]
    for bulk in (False, True):
        replica.pause(0.3, 10.0, bulk=bulk)
    await replica.encode(Batch(make_request([1], bulk=True).items), lambda *_: None)
    assert replica.has_free_lane(10.0, bulk=True)
    assert not replica.has_free_lane(10.0)


def test_bulk_that_it_has_enough_of_keeps_no_query_from_it(replica: Replica) -> None:
    until = replica.pause(0.3, 10.0, bulk=True)
    assert replica.has_free_lane(10.0)
    assert not replica.has_free_lane(10.0, bulk=True)
    assert replica.has_free_lane(until, bulk=True)


def test_however_often_it_is_overloaded_it_is_asked_again_soon(replica: Replica) -> None:
    """Or other routers, which have lanes of it, would get all of it for good."""
    now = 10.0
    for _ in range(20):
        until = replica.pause(None, now)
        assert until - now <= 2 * PAUSE_SECONDS
        now = until


def test_routers_do_not_ask_in_step(replica: Replica) -> None:
    pauses = {round(replica.pause(None, now) - now, 6) for now in range(100)}
    assert len(pauses) > 10
