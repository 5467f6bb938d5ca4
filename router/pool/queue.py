"""What waits for one pool, and which of it goes next (pure: no I/O, no clock of its own).

Two classes wait here, each in its own order. Interactive goes first; while bulk waits too, it earns a
share of what interactive takes, and once it has earned a whole batch that batch goes before the rest.
A batch is of one class, so that the engine can be told how urgent it is.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from router.errors import QueueFull
from router.items import Batch, Item, Place, Query, cost_of, size_of
from router.pool.pace import DrainRate

BULK_SHARE = 0.2
# Whoever is refused is asked to come back when about half of what waits will be done, within these bounds.
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1, 60
# How far off the time that a request will take may be guessed: what is let in shall be done in time.
MARGIN = 2.0
# An item that has failed this often goes alone, so that it can take no neighbour down once more.
TRIES_BEFORE_ALONE = 2
# Images cost tokens by their pixels, whatever their bytes. A worker refuses a batch of over 256 MiB, and a
# router must be able to write one without holding up others.
MAX_BATCH_BYTES = 32 << 20


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
        self._bulk_share = bulk_share
        self._earned = 0.0
        self._interactive = _Line()
        self._bulk = _Line()
        self._drained = DrainRate()
        self._held = False

    @property
    def items(self) -> int:
        """Items waiting."""
        return len(self._interactive.items) + len(self._bulk.items)

    @property
    def tokens(self) -> int:
        """Tokens waiting, estimated."""
        return self._interactive.tokens + self._bulk.tokens

    def next_class(self, max_tokens: int, *, bulk_too: bool = True) -> bool | None:
        """Whether the next batch would be bulk, which it may be with `bulk_too`; None when there is none."""
        if self._interactive.items and not (
            bulk_too and self._bulk.items and self._earned >= min(max_tokens, self._bulk.tokens)
        ):
            return False
        return True if bulk_too and self._bulk.items else None

    def head(self, *, bulk: bool) -> Item | None:
        """What goes first in a class."""
        return next(iter(self._line_of(bulk).items), None)

    def depth(self, *, bulk: bool) -> tuple[int, int]:
        """Items and tokens waiting in one class."""
        line = self._line_of(bulk)
        return len(line.items), line.tokens

    def check_room(
        self, items: Sequence[Item], now: float, deadline: float = math.inf, in_flight: int = 0
    ) -> None:
        """Raise `QueueFull` unless all of `items` may wait here together, and will be done by `deadline`.

        Work that would only wait until its time is over would take the place of work that is done in time.
        `in_flight` tokens have left the queue and are not done yet.
        """
        tokens = cost_of(items)
        ahead = self._ahead(bulk=any(item.bulk for item in items)) + in_flight
        self._check(items[0].pool, len(items), tokens, ahead, now, deadline)

    def check_any_room(self, pool: str, now: float, deadline: float = math.inf, in_flight: int = 0) -> None:
        """Raise `QueueFull` when `check_room` would, whatever the items."""
        ahead = min(self._ahead(bulk=False), self._ahead(bulk=True)) + in_flight
        self._check(pool, 1, 1, ahead, now, deadline)

    def _check(self, pool: str, items: int, tokens: int, ahead: float, now: float, deadline: float) -> None:
        if not self.items:
            return
        if self.items + items > self._max_items or self.tokens + tokens > self._max_tokens:
            raise QueueFull(
                f"{self.items} items wait for the pool {pool} already; try again later",
                retry_after=self._retry_after(now),
            )
        rate = self._rate(now)
        if rate is not None and now + MARGIN * (ahead + tokens) / rate > deadline:
            raise QueueFull(
                f"with what waits for the pool {pool} this takes about {(ahead + tokens) / rate:.1f} s, and "
                f"the request has {deadline - now:.1f} s; try again later",
                retry_after=self._retry_after(now),
            )

    def admit(self, items: Sequence[Item], now: float) -> None:
        """Let all of `items` wait; whether they may, `check_room` has said."""
        for item in items:
            item.place = Place.WAITING
            self._line_of(item.bulk).append(item)
        self._drained.observe(0, now, waiting=True)

    def drained(self, item: Item, now: float) -> None:
        """`item`, which a lane had taken, is done."""
        self._drained.observe(item.cost, now, waiting=bool(self.items))

    def put_back(self, items: Sequence[Item]) -> None:
        """Return items that a lane had taken to the head of their class, in their order.

        Their room was granted when they were admitted, so nothing is refused here.
        """
        for item in reversed(items):
            item.place = Place.WAITING
            self._line_of(item.bulk).prepend(item)

    def cancel(self, items: Iterable[Item], now: float) -> None:
        """Forget those of `items` that wait here."""
        for item in items:
            if item.place is Place.WAITING:
                self._line_of(item.bulk).remove(item)
                item.place = Place.DONE
        self._drained.observe(0, now, waiting=bool(self.items))

    def take(
        self,
        max_tokens: int,
        max_items: int,
        now: float,
        *,
        bulk: bool,
        untried: bool = False,
        space: str = "",
        idle: bool = True,
    ) -> Taken:
        """The next batch of a class, within both limits, and the items met on the way that are too late.

        An item that is larger than `max_tokens` or `MAX_BATCH_BYTES` goes alone, and so does one before its
        last try. What items are held against comes on top of `max_tokens`: it is read once for as many of
        them as there is room for, where otherwise a long one would be read again with each. `untried` skips
        items that failed before. Items whose request does not take `space` are skipped, and suspects too
        unless the replica is `idle`.
        """
        line = self._line_of(bulk)
        items: list[Item] = []
        expired: list[Item] = []
        queries: set[Query] = set()
        tokens = size = 0
        for item in line.items:
            if item.gather.deadline <= now:
                expired.append(item)
                continue
            if untried and item.failed_before:
                continue
            if (item.deaths and not idle) or not item.gather.takes(item.pool, space):
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
        self._settle(line, batch.tokens if batch else 0)
        return Taken(batch, expired)

    def waiting(self) -> list[Item]:
        """All that waits."""
        return [*self._interactive.items, *self._bulk.items]

    def hold(self) -> None:
        """There is nobody to take what waits, until `release`."""
        self._held = True

    def release(self, now: float) -> None:
        """There is somebody again. How fast it drained before says nothing of them."""
        if self._held:
            self._held = False
            self._drained = DrainRate()
            self._drained.observe(0, now, waiting=bool(self.items))

    def _line_of(self, bulk: bool) -> "_Line":
        return self._bulk if bulk else self._interactive

    def _ahead(self, *, bulk: bool) -> float:
        """The tokens that are done before a new item of a class has its turn."""
        share = self._bulk_share if bulk else 1 - self._bulk_share
        # The class has its share for certain, and what the other leaves.
        return min(self.tokens, self._line_of(bulk).tokens / share)

    def _rate(self, now: float) -> float | None:
        """The tokens a second that it drains, None while that is not known: also while it is held."""
        return None if self._held else self._drained.per_second(now)

    def _retry_after(self, now: float) -> int:
        rate = self._rate(now)
        if rate is None:
            return SHORTEST_RETRY_SECONDS
        seconds = self.tokens / 2 / rate
        return math.ceil(min(max(seconds, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS))

    def _settle(self, line: "_Line", tokens: int) -> None:
        """Book what a batch took: interactive earns for the bulk that waits, bulk spends."""
        if line is self._interactive:
            if self._bulk.items:
                self._earned += tokens * self._bulk_share / (1 - self._bulk_share)
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
