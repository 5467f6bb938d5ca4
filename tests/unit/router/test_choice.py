"""Which batch goes to which replica, and how large it is (pure)."""

import sys

import pytest
from msgspec.structs import replace

from tests.unit.router.apps import info
from tests.unit.router.items import make_request
from tests.unit.router.told import Told
from triptych.router.items import Job
from triptych.router.pool.choice import SMALLEST_SHARE_TOKENS, SPARE_SECONDS, share_of, takes_bulk
from triptych.router.pool.replica import Replica

FIXED, PER_TOKEN = 0.01, 20e-6
NEARLY_FREE = FIXED / PER_TOKEN


def suspect(pool: Told) -> Job:
    """A job that waits, whose item a worker died with."""
    job = make_request([1])
    job.items[0].deaths = 1
    pool.admit(job.items, pool.now)
    return job


def test_one_suspect_at_a_time() -> None:
    pool = Told(4, 4)
    first, second = suspect(pool), suspect(pool)
    bulk = pool.ask(bulk=True)
    batches = [batch for _, batch, *_ in pool.started]
    assert [batch.items for batch in batches] == [first.items, bulk.items], "bulk has its turn"
    assert batches[0].request().alone
    assert pool.queue.waiting() == second.items


def test_busy_replica_is_spared_in_turns() -> None:
    """A long text may keep it busy; other items do not wait for that."""
    pool = Told(4)
    pool.ask()
    pool.now = 10.0
    suspect(pool)
    query = pool.ask()
    assert len(pool.started) == 1
    assert pool.wake_at(10.0) == 10.0 + SPARE_SECONDS
    pool.now += SPARE_SECONDS
    pool.dispatch()
    assert pool.last() == query.items
    pool.now += SPARE_SECONDS
    pool.ask()
    assert len(pool.started) == 2


def test_job_waits_for_its_vector_space() -> None:
    pool = Told(4, 4)
    new, old = pool.replicas
    new.up(replace(info("retrieval"), space="new"))
    old.breaker.failed(-1.0, 0.0)
    job = make_request([1])
    job.items[0].tries = 1
    job.spaces["retrieval"] = old.space
    pool.admit(job.items, 0.0)
    pool.dispatch()
    assert pool.last(old) == job.items, "the only one of the space, though its last batch failed"


def measured(lanes: int = 4, *, known: bool = True) -> Replica:
    """A replica whose batches take `FIXED` seconds and `PER_TOKEN` for each token, measured if `known`."""
    made = Replica("127.0.0.1:1", "retrieval", lanes)
    for number in range(50 if known else 0):
        tokens = (20, 400, 60)[number % 3]
        made.pace.observe(tokens, FIXED + PER_TOKEN * tokens)
    return made


@pytest.mark.parametrize(("lanes", "in_use", "beside_queries", "may"), [
    (4, 2, False, True), (4, 3, False, False), (4, 0, True, True), (4, 1, True, False),
    (1, 0, False, True), (1, 0, True, True), (1, 1, False, False),
])  # fmt: skip
def test_bulk_leaves_lanes_for_queries(lanes: int, in_use: int, beside_queries: bool, may: bool) -> None:
    busy = measured(lanes)
    busy.bulk_lanes_in_use = in_use
    assert takes_bulk(busy, beside_queries=beside_queries) is may


def of_tokens(count: int, in_flight: int = 0) -> Replica:
    """A replica that has measured only how long tokens take: `count` a second."""
    made = measured(known=False)
    for tokens in (20, 400, 60) if count else ():
        made.pace.observe(tokens, tokens / count)
    made.tokens_in_flight = in_flight
    return made


@pytest.mark.parametrize(
    ("waiting", "replicas", "beside_queries", "share"),
    [
        # Half of an equal share of all work.
        (6000, [measured()], False, 3000),
        (6000, [measured(), measured()], False, 1500),
        (3000, [measured(), of_tokens(0, in_flight=3000)], False, 1500),
        # At least what is nearly free, and worth its call; anything, if that is unknown.
        (600, [measured()], False, NEARLY_FREE),
        (100, [of_tokens(1_000_000)], True, SMALLEST_SHARE_TOKENS),
        (600, [of_tokens(0)], False, sys.maxsize),
        # Beside queries exactly that.
        (60_000, [measured()], True, NEARLY_FREE),
    ],
)
def test_share_of_a_replica(
    waiting: int, replicas: list[Replica], beside_queries: bool, share: float
) -> None:
    found = share_of(waiting, replicas[0], replicas, beside_queries=beside_queries)
    assert found == pytest.approx(share, rel=0.02)


def test_unmeasured_replicas_share_batches() -> None:
    pool = Told(4, 4, batch_items=1)
    pool.ask(4)
    assert [replica.lanes_in_use for replica in pool.replicas] == [2, 2]
