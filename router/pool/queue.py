"""The waiting items of one pool: which requests are admitted, and which items go next (pure).

Each priority has its own line. Interactive items go first. While bulk items wait too, they earn a share of
what interactive items take; once they have earned a whole batch, that batch goes first. In each line and in
the room for waiting items, API keys have fair shares.
"""

import math
from collections.abc import Iterable, Sequence

from triptych.router.errors import QueueFull
from triptych.router.items import Batch, Item, ItemState, Priority, cost_of
from triptych.router.pool.line import Line
from triptych.router.pool.pace import DrainRate
from triptych.router.room import Room

BULK_SHARE = 0.2
# Retry-After is the time in which about half of the tokens ahead are done, within these bounds.
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
# Admission assumes that the queue may drain this much slower than measured.
MARGIN = 2.0


class PoolQueue:
    """The queue of one pool, bounded by `max_tokens` and `max_items`.

    A request that is larger than `max_tokens` is admitted when the queue is empty; otherwise it could never
    be served.
    """

    def __init__(self, max_tokens: int, max_items: int, bulk_share: float = BULK_SHARE) -> None:
        self._room_items, self._room_tokens = Room(max_items), Room(max_tokens)
        self._shares = (1 - bulk_share, bulk_share)
        self._earned = 0.0
        self._interactive, self._bulk = Line(), Line()
        # By priority.
        self._lines = (self._interactive, self._bulk)
        self._drained = DrainRate()
        self._rate_unknown = False

    @property
    def items(self) -> int:
        """Number of waiting items."""
        return self._interactive.items + self._bulk.items

    @property
    def tokens(self) -> int:
        """Waiting tokens, estimated."""
        return self._interactive.tokens + self._bulk.tokens

    def next_priority(self, max_tokens: int, *, bulk_allowed: bool = True) -> Priority | None:
        """Priority of the next batch of up to `max_tokens`, or None if nothing can be dispatched."""
        bulk_waits = bulk_allowed and self._bulk.items > 0
        bulk_is_due = bulk_waits and self._earned >= min(max_tokens, self._bulk.tokens)
        if self._interactive.items and not bulk_is_due:
            return Priority.INTERACTIVE
        return Priority.BULK if bulk_waits else None

    def head(self, priority: Priority) -> Item | None:
        """The item of a priority that goes next."""
        return self._lines[priority].head()

    def depth(self, priority: Priority) -> tuple[int, int]:
        """Waiting items and tokens of a priority."""
        line = self._lines[priority]
        return line.items, line.tokens

    def check_room(
        self, items: Sequence[Item], now: float, deadline: float = math.inf, in_flight: int = 0
    ) -> None:
        """Raise `QueueFull` unless all of `items` fit and are likely to be done by `deadline`.

        Items that would only time out would take the place of items that can be served. `in_flight` tokens
        have left the queue and are not done yet.
        """
        priority = max(item.priority for item in items)
        pool, key = items[0].pool, items[0].job.key
        tokens = cost_of(items)
        if refusal := self._refusal(pool, key, priority, len(items), tokens, now, deadline, in_flight):
            raise refusal

    def check_any_room(
        self, pool: str, now: float, deadline: float = math.inf, in_flight: int = 0, key: str = ""
    ) -> None:
        """Raise `QueueFull` when `check_room` would for any items of `key`."""
        refusal = self._refusal(pool, key, Priority.INTERACTIVE, 1, 1, now, deadline, in_flight)
        if refusal and self._refusal(pool, key, Priority.BULK, 1, 1, now, deadline, in_flight):
            raise refusal

    def _refusal(
        self,
        pool: str,
        key: str,
        priority: Priority,
        items: int,
        tokens: int,
        now: float,
        deadline: float,
        in_flight: int,
    ) -> QueueFull | None:
        """Why `items` with `tokens` of `key` cannot be admitted; None if they can."""
        waiting, waiting_tokens = self.items, self.tokens
        if not waiting:
            return None
        ahead: float = waiting_tokens
        if waiting + items > self._room_items.most or waiting_tokens + tokens > self._room_tokens.most:
            detail = f"the queue of the pool {pool} is full: {waiting} items wait"
        elif key and not self._has_share(key, priority, items, tokens):
            detail = f"the API key has its share of the queue of the pool {pool}"
            ahead = self._ahead(key, priority, tokens)
        else:
            rate = self._rate(now)
            # Bulk work may be slow without holding up the query that goes next.
            goes_next = priority is Priority.INTERACTIVE and not self._interactive.items
            if rate is None or goes_next:
                return None
            ahead = self._ahead(key, priority, tokens) + in_flight
            if now + MARGIN * (ahead + tokens) / rate <= deadline:
                return None
            detail = (
                f"the pool {pool} needs about {(ahead + tokens) / rate:.1f} s for this request and the "
                f"ones before it, and the request has {deadline - now:.1f} s"
            )
        return QueueFull(f"{detail}; try again later", retry_after=self._retry_after(ahead, now))

    def _has_share(self, key: str, priority: Priority, items: int, tokens: int) -> bool:
        """Whether `key` may add `items` with `tokens` to what it has of a priority."""
        own, own_tokens = self._lines[priority].depth(key)
        by_items = self._room_items.has_share(own, items, self.items)
        return by_items and self._room_tokens.has_share(own_tokens, tokens, self.tokens)

    def admit(self, items: Sequence[Item], now: float) -> None:
        """Add `items` of one job, for which `check_room` has found room."""
        bulk = [item for item in items if item.priority is Priority.BULK]
        # Most requests have items of one priority.
        if len(bulk) < len(items):
            interactive = [item for item in items if item.priority is Priority.INTERACTIVE] if bulk else items
            self._interactive.append(interactive)
        if bulk:
            self._bulk.append(bulk)
        self._drained.observe(0, now, waiting=True)

    def drained(self, item: Item, now: float) -> None:
        """Count `item`, which had left the queue, as done."""
        self._drained.observe(item.cost, now, bool(self.items), now - item.job.started_at)

    def put_back(self, items: Sequence[Item]) -> None:
        """Return items in flight to the head of their line, in their order. They need no room."""
        for item in reversed(items):
            self._lines[item.priority].put_back(item)

    def cancel(self, items: Iterable[Item], now: float) -> None:
        """Remove those of `items` that wait here."""
        for item in items:
            if item.state is ItemState.WAITING:
                self._lines[item.priority].remove(item)
                item.state = ItemState.DROPPED
        self._drained.observe(0, now, waiting=bool(self.items))

    def take(
        self,
        max_tokens: int,
        max_items: int,
        priority: Priority,
        *,
        untried: bool = False,
        space: str = "",
        idle: bool = True,
    ) -> Batch | None:
        """The next batch of a priority, within both limits; None if no item can go now.

        An item that is larger than `max_tokens` or `MAX_BATCH_BYTES` goes alone, and so does one before its
        last try. Queries come on top of `max_tokens`: a query is encoded once for all its documents in a
        batch, so splitting them would encode a long one several times. `untried` skips items that failed
        before. Items whose job does not accept `space` are skipped, and suspects unless the replica is
        `idle`.
        """
        items = self._lines[priority].take(max_tokens, max_items, untried=untried, space=space, idle=idle)
        if not items:
            return None
        batch = Batch(items)
        # Interactive batches earn for waiting bulk items; bulk batches spend.
        interactive_share, bulk_share = self._shares
        if priority is Priority.INTERACTIVE:
            if self._bulk.items:
                self._earned += batch.tokens * bulk_share / interactive_share
        elif self._interactive.items:
            self._earned -= batch.tokens
        if not self._bulk.items:
            self._earned = 0.0
        return batch

    def waiting(self) -> list[Item]:
        return [item for line in self._lines for item in line]

    def forget_rate(self) -> None:
        """No replica is up: the drain rate is unknown until `measure_rate`."""
        self._rate_unknown = True

    def measure_rate(self, now: float) -> None:
        """A replica is up. After `forget_rate` the drain rate starts over."""
        if self._rate_unknown:
            self._rate_unknown = False
            self._drained = DrainRate()
            self._drained.observe(0, now, waiting=bool(self.items))

    def _ahead(self, key: str, priority: Priority, tokens: int) -> float:
        """Most tokens that are done before `tokens` more of `key` and a priority are begun.

        A priority has its guaranteed share, and what the other one leaves.
        """
        return min(self.tokens, self._lines[priority].ahead(key, tokens) / self._shares[priority])

    def _rate(self, now: float) -> float | None:
        """Drain rate in tokens a second; None while unknown."""
        return None if self._rate_unknown else self._drained.per_second(now)

    def _retry_after(self, ahead: float, now: float) -> int:
        rate = self._rate(now)
        if rate is None:
            return SHORTEST_RETRY_SECONDS
        seconds = ahead / 2 / rate
        return math.ceil(min(max(seconds, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS))
