"""Items, requests and results for tests that need no HTTP."""

import struct
from collections.abc import Callable, Sequence

from router.item import Gather, Item
from workers import contract

NEVER = float("inf")


def make_item(cost: int = 1, index: int = 0, *, bulk: bool = False, name: str = "") -> Item:
    """An item that is told from others by its text."""
    text = contract.Text(name or f"{index}", "query")
    return Item("retrieval", contract.Item(text), cost, index, f"body -> input -> {index}", bulk)


def make_request(
    costs: Sequence[int],
    *,
    bulk: bool = False,
    now: float = 0.0,
    deadline: float = NEVER,
    finished: Callable[[Gather], None] = lambda _: None,
) -> Gather:
    """A request of one item for each cost."""
    items = [make_item(cost, index, bulk=bulk) for index, cost in enumerate(costs)]
    return Gather(items, now, deadline, finished)


def vector(item: Item, number: int = 0) -> contract.Vector:
    """A result that says whose it is."""
    return contract.Vector(0, item.cost, (1,), struct.pack("<f", number))
