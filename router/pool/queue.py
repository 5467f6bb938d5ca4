"""The waiting items of one pool, and which of them go next (pure: times are arguments).

Each priority has its own line. Interactive items go first. While bulk items wait too, they earn a share of
what interactive items take; once they have earned a whole batch, that batch goes first.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from router.errors import QueueFull
from router.items import Batch, Item, ItemState, Priority, Query, cost_of, size_of
from router.pool.pace import DrainRate

BULK_SHARE = 0.2
# Retry-After is the time in which about half of the queue drains, within these bounds.
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
# Admission assumes that the queue may drain this much slower than measured.
MARGIN = 2.0
# An item that has failed this often is sent alone, so that it cannot fail others with it.
TRIES_BEFORE_ALONE = 2
# An image costs tokens by its pixels, whatever its bytes. Workers refuse batches over 256 MiB, and writing a
# large one delays other requests.
MAX_BATCH_BYTES = 32 << 20


class Taken(NamedTuple):
    """What left the queue: a batch, if there is one, and items whose deadline has passed."""

    batch: Batch | None
    expired: list[Item]


class PoolQueue:
    """The queue of one pool, bounded by `max_tokens` and `max_items`.

    A request that is larger than `max_tokens` is admitted when the queue is empty; otherwise it could never
    be served.
    """

    def __init__(self, max_tokens: int, max_items: int, bulk_share: float = BULK_SHARE) -> None:
        self._max_tokens = max_tokens
        self._max_items = max_items
        self._shares = (1 - bulk_share, bulk_share)
        self._earned = 0.0
        self._interactive, self._bulk = _Line(), _Line()
        # By priority.
        self._lines = (self._interactive, self._bulk)
        self._drained = DrainRate()
        self._rate_unknown = False

    @property
    def items(self) -> int:
        """Number of waiting items."""
        return len(self._interactive.items) + len(self._bulk.items)

    @property
    def tokens(self) -> int:
        """Waiting tokens, estimated."""
        return self._interactive.tokens + self._bulk.tokens

    def next_priority(self, max_tokens: int, *, bulk_allowed: bool = True) -> Priority | None:
        """Priority of the next batch of up to `max_tokens`, or None if nothing can be dispatched."""
        bulk_waits = bulk_allowed and bool(self._bulk.items)
        bulk_is_due = bulk_waits and self._earned >= min(max_tokens, self._bulk.tokens)
        if self._interactive.items and not bulk_is_due:
            return Priority.INTERACTIVE
        return Priority.BULK if bulk_waits else None

    def head(self, priority: Priority) -> Item | None:
        """The first waiting item of a priority."""
        return next(iter(self._lines[priority].items), None)

    def depth(self, priority: Priority) -> tuple[int, int]:
        """Waiting items and tokens of a priority."""
        line = self._lines[priority]
        return len(line.items), line.tokens

    def check_room(
        self, items: Sequence[Item], now: float, deadline: float = math.inf, in_flight: int = 0
    ) -> None:
        """Raise `QueueFull` unless all of `items` fit and are likely to be done by `deadline`.

        Items that would only time out would take the place of items that can be served. `in_flight` tokens
        have left the queue and are not done yet.
        """
        ahead = self._ahead(max(item.priority for item in items)) + in_flight
        self._check(items[0].pool, len(items), cost_of(items), ahead, now, deadline)

    def check_any_room(self, pool: str, now: float, deadline: float = math.inf, in_flight: int = 0) -> None:
        """Raise `QueueFull` when `check_room` would for any items."""
        ahead = min(self._ahead(Priority.INTERACTIVE), self._ahead(Priority.BULK)) + in_flight
        self._check(pool, 1, 1, ahead, now, deadline)

    def _check(self, pool: str, items: int, tokens: int, ahead: float, now: float, deadline: float) -> None:
        if not self.items:
            return
        if self.items + items > self._max_items or self.tokens + tokens > self._max_tokens:
            raise QueueFull(
                f"the queue of the pool {pool} is full: {self.items} items wait; try again later",
                retry_after=self._retry_after(now),
            )
        rate = self._rate(now)
        if rate is not None and now + MARGIN * (ahead + tokens) / rate > deadline:
            raise QueueFull(
                f"the pool {pool} needs about {(ahead + tokens) / rate:.1f} s for this request and the "
                f"ones before it, and the request has {deadline - now:.1f} s; try again later",
                retry_after=self._retry_after(now),
            )

    def admit(self, items: Sequence[Item], now: float) -> None:
        """Add `items`, for which `check_room` has found room."""
        for item in items:
            item.state = ItemState.WAITING
            self._lines[item.priority].append(item)
        self._drained.observe(0, now, waiting=True)

    def drained(self, item: Item, now: float) -> None:
        """Count `item`, which had left the queue, as done."""
        self._drained.observe(item.cost, now, waiting=bool(self.items))

    def put_back(self, items: Sequence[Item]) -> None:
        """Return items in flight to the head of their line, in their order. They were admitted before."""
        for item in reversed(items):
            item.state = ItemState.WAITING
            self._lines[item.priority].prepend(item)

    def cancel(self, items: Iterable[Item], now: float) -> None:
        """Remove those of `items` that wait here."""
        for item in items:
            if item.state is ItemState.WAITING:
                self._lines[item.priority].remove(item)
                item.state = ItemState.DONE
        self._drained.observe(0, now, waiting=bool(self.items))

    def take(
        self,
        max_tokens: int,
        max_items: int,
        now: float,
        priority: Priority,
        *,
        untried: bool = False,
        space: str = "",
        idle: bool = True,
    ) -> Taken:
        """The next batch of a priority, within both limits; expired items are removed on the way.

        An item that is larger than `max_tokens` or `MAX_BATCH_BYTES` goes alone, and so does one before its
        last try. Queries come on top of `max_tokens`: a query is encoded once for all its documents in a
        batch, so splitting them would encode a long one several times. `untried` skips items that failed
        before. Items whose job does not accept `space` are skipped, and suspects unless the replica is
        `idle`.
        """
        line = self._lines[priority]
        items: list[Item] = []
        expired: list[Item] = []
        queries: set[Query] = set()
        tokens = size = 0
        for item in line.items:
            if item.job.deadline <= now:
                expired.append(item)
                continue
            if untried and item.failed_before:
                continue
            if (item.deaths and not idle) or not item.job.accepts(item.pool, space):
                continue
            alone = item.deaths > 0 or item.tries >= TRIES_BEFORE_ALONE
            tokens += item.cost
            size += size_of(item.wire.content)
            if item.query is not None and item.query not in queries:
                queries.add(item.query)
                size += size_of(item.query.content)
            if items and (alone or tokens > max_tokens or size > MAX_BATCH_BYTES or len(items) == max_items):
                break
            items.append(item)
            if alone:
                break
        for item in items:
            line.remove(item)
        self.cancel(expired, now)
        batch = Batch(items) if items else None
        self._account(priority, batch.tokens if batch else 0)
        return Taken(batch, expired)

    def waiting(self) -> list[Item]:
        """All waiting items."""
        return [item for line in self._lines for item in line.items]

    def forget_rate(self) -> None:
        """No replica is up: the drain rate is unknown until `measure_rate`."""
        self._rate_unknown = True

    def measure_rate(self, now: float) -> None:
        """A replica is up. After `forget_rate` the drain rate starts over."""
        if self._rate_unknown:
            self._rate_unknown = False
            self._drained = DrainRate()
            self._drained.observe(0, now, waiting=bool(self.items))

    def _ahead(self, priority: Priority) -> float:
        """Tokens that are done before a new item of a priority gets its turn.

        A priority has its guaranteed share, and what the other one leaves.
        """
        return min(self.tokens, self._lines[priority].tokens / self._shares[priority])

    def _rate(self, now: float) -> float | None:
        """Drain rate in tokens a second; None while unknown."""
        return None if self._rate_unknown else self._drained.per_second(now)

    def _retry_after(self, now: float) -> int:
        rate = self._rate(now)
        if rate is None:
            return SHORTEST_RETRY_SECONDS
        seconds = self.tokens / 2 / rate
        return math.ceil(min(max(seconds, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS))

    def _account(self, priority: Priority, tokens: int) -> None:
        """Interactive batches earn for waiting bulk items; bulk batches spend."""
        if priority is Priority.INTERACTIVE:
            if self._bulk.items:
                self._earned += tokens * self._shares[Priority.BULK] / self._shares[Priority.INTERACTIVE]
        elif self._interactive.items:
            self._earned -= tokens
        if not self._bulk.items:
            self._earned = 0.0


class _Line:
    """Items in order, with removal anywhere in constant time, and the sum of their costs."""

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
