"""Which batch goes where when something has failed before (pure)."""

import msgspec
import pytest

from router.items import Gather, Item
from router.pool.dispatcher import SPARE_SECONDS, Dispatched, Dispatcher
from router.pool.queue import PoolQueue
from router.pool.replica import Replica
from tests.unit.router.apps import info
from tests.unit.router.items import NEVER, admit, make_item


@pytest.fixture
def queue() -> PoolQueue:
    return PoolQueue(10**6, 10**6)


@pytest.fixture
def dispatcher(queue: PoolQueue) -> Dispatcher:
    return Dispatcher(queue, 100, 10)


def replica(name: str, space: str = "only") -> Replica:
    made = Replica(name, "retrieval", 4, None)  # type: ignore[arg-type]
    made.up(msgspec.structs.replace(info("retrieval"), space=space))
    return made


def waiting(
    queue: PoolQueue, *, deaths: int = 0, tries: int = 0, bulk: bool = False, space: str = ""
) -> Item:
    item = make_item(bulk=bulk)
    item.deaths, item.tries = deaths, tries
    gather = Gather([item], 0.0, NEVER, lambda _: None)
    if space:
        gather.spaces["retrieval"] = space
    admit(queue, [item])
    return item


def dispatch(dispatcher: Dispatcher, replicas: list[Replica], now: float = 0.0) -> Dispatched:
    found = dispatcher.next(replicas, now, beside_queries=False)
    if found.replica is not None and found.batch is not None:
        found.replica.hold(found.batch)
    return found


def items_of(found: Dispatched) -> list[Item]:
    return found.batch.items if found.batch else []


def test_a_suspect_goes_alone_to_an_idle_replica(queue: PoolQueue, dispatcher: Dispatcher) -> None:
    suspect, other = waiting(queue, deaths=1), waiting(queue)
    first, second = replica("a"), replica("b")
    assert items_of(dispatch(dispatcher, [first, second])) == [suspect]
    assert items_of(dispatch(dispatcher, [first, second])) == [other]
    assert (first.lanes_in_use, second.lanes_in_use) == (1, 1)


def test_one_suspect_at_a_time_while_others_serve(queue: PoolQueue, dispatcher: Dispatcher) -> None:
    suspects = [waiting(queue, deaths=1) for _ in range(2)]
    bulk = waiting(queue, bulk=True)
    replicas = [replica("a"), replica("b")]
    assert items_of(dispatch(dispatcher, replicas)) == suspects[:1]
    assert items_of(dispatch(dispatcher, replicas)) == [bulk], "the other class has its turn"
    assert not items_of(dispatch(dispatcher, replicas))


def test_a_busy_replica_is_spared_for_a_suspect_in_turns(queue: PoolQueue, dispatcher: Dispatcher) -> None:
    """It may have a long text in flight, for which nothing else should wait."""
    one = replica("a")
    waiting(queue)
    assert dispatch(dispatcher, [one]).batch
    waiting(queue, deaths=1)
    query = waiting(queue)
    assert not dispatch(dispatcher, [one], 10.0).batch
    assert dispatcher.spares_until == 10.0 + SPARE_SECONDS
    assert items_of(dispatch(dispatcher, [one], 10.0 + SPARE_SECONDS)) == [query]
    waiting(queue)
    assert not dispatch(dispatcher, [one], 10.0 + 2 * SPARE_SECONDS).batch


def test_a_request_waits_for_a_replica_of_its_space(queue: PoolQueue, dispatcher: Dispatcher) -> None:
    old, new = replica("a", "old"), replica("b", "new")
    item = waiting(queue, space="old", tries=1)
    old.breaker.failed(-1.0, 0.0)
    found = dispatch(dispatcher, [new, old])
    assert found.replica is old, "of those that it takes it is the only one, though its last batch failed"
    assert items_of(found) == [item]
