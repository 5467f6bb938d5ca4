"""What waits for one pool, and which of it goes next (pure: no I/O, no clock of its own).

Two classes wait here, each in its own order. Interactive goes first; while bulk waits too, it earns a
share of what interactive takes, and once it has earned a whole batch that batch goes before the rest.
A batch is of one class, so that the engine can be told how urgent it is.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from router.errors import QueueFull
from router.item import Batch, Item, Place

BULK_SHARE = 0.2
# An item that has failed this often goes alone, so that it can take no neighbour down once more.
TRIES_BEFORE_ALONE = 2


class Taken(NamedTuple):
    """What left the queue: a batch, when there is one, and items that are too late for any."""

    batch: Batch | None
    expired: list[Item]


class PoolQueue:
    """The waiting items of one pool.

    `max_tokens` and `max_items` bound what may wait; a request that alone is over `max_tokens` is taken
    when nothing else waits, or it could never be served.
    """

    def __init__(self, max_tokens: int, max_items: int, bulk_share: float = BULK_SHARE) -> None:
        self._max_tokens = max_tokens
        self._max_items = max_items
        self._earning = bulk_share / (1 - bulk_share)
        self._earned = 0.0
        self._interactive = _Line()
        self._bulk = _Line()

    @property
    def items(self) -> int:
        """Items waiting."""
        return len(self._interactive.items) + len(self._bulk.items)

    @property
    def tokens(self) -> int:
        """Tokens waiting, estimated."""
        return self._interactive.tokens + self._bulk.tokens

    def retrying(self, max_tokens: int) -> bool:
        """Whether what `take` would give first has failed before."""
        head = next(iter(self._next_line(max_tokens).items), None)
        return head is not None and head.tries > 0

    def depth(self, *, bulk: bool) -> tuple[int, int]:
        """Items and tokens waiting in one class."""
        line = self._bulk if bulk else self._interactive
        return len(line.items), line.tokens

    def check_room(self, items: Sequence[Item]) -> None:
        """Raise `QueueFull` unless all of `items` may wait here together."""
        waiting = self.items
        tokens = sum(item.cost for item in items)
        if waiting and (waiting + len(items) > self._max_items or self.tokens + tokens > self._max_tokens):
            raise QueueFull(
                f"{waiting} items wait for the pool {items[0].pool} already; try again shortly", retry_after=1
            )

    def admit(self, items: Sequence[Item]) -> None:
        """Let all of `items` wait, or raise `QueueFull` and let none."""
        self.check_room(items)
        for item in items:
            item.place = Place.WAITING
            self._line(item).append(item)

    def put_back(self, items: Sequence[Item]) -> None:
        """Return items that a lane had taken to the head of their class, in their order.

        Their room was granted when they were admitted, so nothing is refused here.
        """
        for item in reversed(items):
            item.place = Place.WAITING
            self._line(item).prepend(item)

    def cancel(self, items: Iterable[Item]) -> None:
        """Forget those of `items` that wait here."""
        for item in items:
            if item.place is Place.WAITING:
                self._line(item).remove(item)
                item.place = Place.DONE

    def take(self, max_tokens: int, max_items: int, now: float) -> Taken:
        """The next batch, within both limits, and the items met on the way that have no time left.

        An item that is larger than `max_tokens` goes alone, and so does one before its last try.
        """
        line = self._next_line(max_tokens)
        items: list[Item] = []
        expired: list[Item] = []
        tokens = 0
        for item in line.items:
            if item.gather.deadline <= now:
                expired.append(item)
                continue
            alone = item.tries >= TRIES_BEFORE_ALONE
            if items and (alone or tokens + item.cost > max_tokens or len(items) == max_items):
                break
            items.append(item)
            tokens += item.cost
            if alone:
                break
        for item in items:
            line.remove(item)
        self.cancel(expired)
        self._settle(line, tokens)
        return Taken(Batch(items) if items else None, expired)

    def waiting(self) -> list[Item]:
        """All that waits."""
        return [*self._interactive.items, *self._bulk.items]

    def _line(self, item: Item) -> "_Line":
        return self._bulk if item.bulk else self._interactive

    def _next_line(self, max_tokens: int) -> "_Line":
        if not self._interactive.items:
            return self._bulk
        if self._bulk.items and self._earned >= min(max_tokens, self._bulk.tokens):
            return self._bulk
        return self._interactive

    def _settle(self, line: "_Line", tokens: int) -> None:
        """Book what a batch took: interactive earns for the bulk that waits, bulk spends."""
        if line is self._interactive:
            if self._bulk.items:
                self._earned += tokens * self._earning
        elif self._interactive.items:
            self._earned -= tokens
        if not self._bulk.items:
            self._earned = 0.0


class _Line:
    """Items in order, with removal anywhere in constant time, and the sum of their cost."""

    __slots__ = ("items", "tokens")

    def __init__(self) -> None:
        self.items: OrderedDict[Item, None] = OrderedDict()
        self.tokens = 0

    def append(self, item: Item) -> None:
        self.items[item] = None
        self.tokens += item.cost

    def prepend(self, item: Item) -> None:
        self.append(item)
        self.items.move_to_end(item, last=False)

    def remove(self, item: Item) -> None:
        del self.items[item]
        self.tokens -= item.cost
