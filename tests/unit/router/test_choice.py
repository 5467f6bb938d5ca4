"""Which batch goes to which replica, and how large it is (pure)."""

import sys

import msgspec
import pytest

from tests.unit.router.apps import info
from tests.unit.router.items import NEVER, admit, make_item
from triptych.router.items import Item, Job
from triptych.router.pool.choice import (
    SMALLEST_SHARE_TOKENS,
    SPARE_SECONDS,
    Choice,
    Dispatched,
    share_of,
    takes_bulk,
)
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica

FIXED, PER_TOKEN = 0.01, 20e-6
NEARLY_FREE = FIXED / PER_TOKEN


@pytest.fixture
def queue() -> PoolQueue:
    return PoolQueue(10**6, 10**6)


@pytest.fixture
def choice(queue: PoolQueue) -> Choice:
    return Choice(queue, 100, 10)


def replica(name: str, space: str = "only") -> Replica:
    made = Replica(name, "retrieval", 4)
    made.up(msgspec.structs.replace(info("retrieval"), space=space))
    return made


def waiting(
    queue: PoolQueue, *, deaths: int = 0, tries: int = 0, bulk: bool = False, space: str = ""
) -> Item:
    item = make_item(bulk=bulk)
    item.deaths, item.tries = deaths, tries
    job = Job([item], 0.0, NEVER, lambda _: None)
    if space:
        job.spaces["retrieval"] = space
    admit(queue, [item])
    return item


def dispatch(choice: Choice, replicas: list[Replica], now: float = 0.0) -> Dispatched | None:
    found = choice.next(replicas, now)
    if found is not None:
        chosen, batch = found
        chosen.acquire(batch)
    return found


def items_of(found: Dispatched | None) -> list[Item]:
    return found[1].items if found else []


def test_one_suspect_at_a_time(queue: PoolQueue, choice: Choice) -> None:
    suspects = [waiting(queue, deaths=1) for _ in range(2)]
    bulk = waiting(queue, bulk=True)
    replicas = [replica("a"), replica("b")]
    found = dispatch(choice, replicas)
    assert items_of(found) == suspects[:1]
    assert found is not None
    assert found[1].request().alone
    assert items_of(dispatch(choice, replicas)) == [bulk], "bulk has its turn"
    assert not items_of(dispatch(choice, replicas))


def test_busy_replica_is_spared_in_turns(queue: PoolQueue, choice: Choice) -> None:
    """A long text may keep it busy; other items do not wait for that."""
    one = replica("a")
    waiting(queue)
    assert dispatch(choice, [one])
    waiting(queue, deaths=1)
    query = waiting(queue)
    assert not dispatch(choice, [one], 10.0)
    assert choice.spares_until == 10.0 + SPARE_SECONDS
    assert items_of(dispatch(choice, [one], 10.0 + SPARE_SECONDS)) == [query]
    waiting(queue)
    assert not dispatch(choice, [one], 10.0 + 2 * SPARE_SECONDS)


def test_job_waits_for_its_vector_space(queue: PoolQueue, choice: Choice) -> None:
    old, new = replica("a", "old"), replica("b", "new")
    item = waiting(queue, space="old", tries=1)
    old.breaker.failed(-1.0, 0.0)
    found = dispatch(choice, [new, old])
    assert found is not None
    assert found[0] is old, "the only one of the space, though its last batch failed"
    assert items_of(found) == [item]


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


def test_unmeasured_replicas_share_batches(queue: PoolQueue) -> None:
    replicas = [replica("a"), replica("b")]
    for _ in range(4):
        waiting(queue)
    taken = [dispatch(Choice(queue, 100, 1), replicas) for _ in range(4)]
    assert [sum(found is not None and found[0] is one for found in taken) for one in replicas] == [2, 2]
