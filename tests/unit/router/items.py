"""Items, requests and results for tests that need no HTTP."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

from triptych.router.items import Batch, Item, Job, Priority, Query
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.call import Deliver
from triptych.router.pool.dispatcher import Dispatcher
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica
from triptych.workers.shared import contract

NEVER = float("inf")


def make_item(cost: int = 1, index: int = 0, *, bulk: bool = False, name: str = "") -> Item:
    """An item with a text of its own."""
    text = contract.Text(name or f"{index}", "query")
    return Item("retrieval", contract.Item(text), cost, index, f"body -> input -> {index}", Priority(bulk))


def make_request(
    costs: Sequence[int],
    *,
    bulk: bool = False,
    now: float = 0.0,
    deadline: float = NEVER,
    finished: Callable[[Job], None] = lambda _: None,
    key: str = "",
) -> Job:
    """A request of one item for each cost."""
    items = [make_item(cost, index, bulk=bulk) for index, cost in enumerate(costs)]
    return Job(items, now, deadline, finished, key=key)


def vector(item: Item, number: int = 0) -> contract.Vector:
    """A result that holds `number`."""
    return contract.Vector(0, item.cost, (1,), struct.pack("<f", number))


def admit(queue: PoolQueue, items: Sequence[Item], now: float = 0.0) -> None:
    """Check the room for `items` and admit them, as a pool does."""
    queue.check_room(items, now)
    queue.admit(items, now)


def take_next(queue: PoolQueue, max_tokens: int, max_items: int) -> Batch | None:
    """Take the next batch, as a pool does."""
    priority = queue.next_priority(max_tokens)
    return None if priority is None else queue.take(max_tokens, max_items, priority)


def ranked(query: Query, items: Sequence[Item]) -> Sequence[Item]:
    """`items` as documents of `query`."""
    for item in items:
        item.query = query
    return items


def observer() -> PoolObserver:
    """An observer of its own, whose metrics nothing reads."""
    return PoolObserver(Metrics(), "retrieval", None, lambda: 0.0)


def dispatcher(
    replicas: Sequence[Replica], tokens: int, items: int, now: float = 0.0, hold_seconds: float = 0.0
) -> Dispatcher:
    """A dispatcher with a large queue."""
    queue = PoolQueue(10**6, 10**6)
    return Dispatcher("retrieval", replicas, queue, tokens, items, observer(), now, hold_seconds)


async def encode(replica: Any, batch: Batch, deliver: Deliver) -> None:
    """`Pool.encode` for replicas of a test."""
    await replica.encode(batch, deliver)
