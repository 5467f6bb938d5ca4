"""The waiting items of one priority: their order, and the batches made of them (pure).

API keys share by deficit round robin (Shreedhar and Varghese, 1996), counted in tokens. In its turn a key
sends what its credit pays for. A key without enough credit for its next item gets `QUANTUM` more, and the
next key has its turn. A key that waits alone is not limited, so without API keys items go in order
of arrival. Items that come back from a replica go before all others.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import inf

from triptych.router.items import Item, ItemState, Query, size_of

# In tokens. The next item of a key waits for at most this much of each other key.
QUANTUM = 1024
# An item that has failed this often is sent alone, so that it cannot fail others with it.
TRIES_BEFORE_ALONE = 2
# An image costs tokens by its pixels, whatever its bytes. Workers refuse batches over 256 MiB, and writing a
# large one delays other requests.
MAX_BATCH_BYTES = 32 << 20


@dataclass(slots=True, eq=False)
class Share:
    """The waiting items of one key, in order, their tokens, and the credit of the key."""

    key: str
    credit: float = QUANTUM
    items: OrderedDict[Item, None] = field(default_factory=OrderedDict)
    tokens: int = 0


class _Filling:
    """A batch that is being filled; `full` once an item did not fit, or has to go alone."""

    __slots__ = ("_bytes", "_max_items", "_max_tokens", "_queries", "_tokens", "full", "items")

    def __init__(self, max_tokens: int, max_items: int) -> None:
        self.items: list[Item] = []
        self.full = False
        self._max_tokens = max_tokens
        self._max_items = max_items
        self._queries: set[Query] = set()
        self._tokens = self._bytes = 0

    def charge(self, item: Item) -> int:
        """Tokens that a key pays for `item`; the documents of a query pay for it once in a batch."""
        query = self._new_query(item)
        return item.cost + (query.cost if query else 0)

    def add(self, item: Item) -> bool:
        """Whether `item` fits; then it is added."""
        alone = item.deaths > 0 or item.tries >= TRIES_BEFORE_ALONE
        query = self._new_query(item)
        tokens = self._tokens + item.cost
        size = self._bytes + size_of(item.wire.content) + (size_of(query.content) if query else 0)
        too_much = tokens > self._max_tokens or size > MAX_BATCH_BYTES or len(self.items) == self._max_items
        if self.items and (alone or too_much):
            self.full = True
            return False
        self._tokens, self._bytes, self.full = tokens, size, alone
        if query:
            self._queries.add(query)
        self.items.append(item)
        return True

    def _new_query(self, item: Item) -> Query | None:
        return None if item.query in self._queries else item.query


class Line:
    """The waiting items of one priority. `items` and `tokens` count them."""

    __slots__ = ("_returned", "_shares", "items", "tokens")

    def __init__(self) -> None:
        self.items = 0
        self.tokens = 0
        # Only keys with waiting items; the first has its turn.
        self._shares: OrderedDict[str, Share] = OrderedDict()
        self._returned = Share("", inf)

    def __iter__(self) -> Iterator[Item]:
        return chain(self._returned.items, *(share.items for share in self._shares.values()))

    def head(self) -> Item | None:
        """The item that goes next."""
        if self._returned.items:
            return next(iter(self._returned.items))
        while self._shares:
            share = next(iter(self._shares.values()))
            item = next(iter(share.items))
            charge = item.cost + (item.query.cost if item.query else 0)
            if len(self._shares) == 1 or charge <= share.credit:
                return item
            self._end_turn(share)
        return None

    def depth(self, key: str) -> tuple[int, int]:
        """Waiting items and tokens of `key`."""
        share = self._shares.get(key)
        return (len(share.items), share.tokens) if share else (0, 0)

    def ahead(self, key: str, tokens: int) -> int:
        """Most tokens that batches take before they have taken `tokens` more of `key`.

        Meanwhile each other key sends as much as `key`, and a quantum.
        """
        share = self._shares.get(key)
        own, others = (share.tokens, len(self._shares) - 1) if share else (0, len(self._shares))
        return min(self.tokens, self._returned.tokens + own + others * (own + tokens + QUANTUM))

    def append(self, items: Sequence[Item]) -> None:
        """Add `items` of one job behind the others of its key."""
        key = items[0].job.key
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(key)
        tokens = 0
        for item in items:
            item.state = ItemState.WAITING
            share.items[item] = None
            tokens += item.cost
        share.tokens += tokens
        self.tokens += tokens
        self.items += len(items)

    def put_back(self, item: Item) -> None:
        """Return `item` to the head. A key pays again for an item that failed: a replica worked on it."""
        item.state = ItemState.WAITING
        self._returned.items[item] = None
        self._returned.items.move_to_end(item, last=False)
        self._returned.tokens += item.cost
        self.items += 1
        self.tokens += item.cost
        share = self._shares.get(item.job.key)
        if share is not None and item.tries and len(self._shares) > 1:
            share.credit -= item.cost

    def remove(self, item: Item) -> None:
        """Remove `item`, wherever it is."""
        returned = self._returned
        self._remove(returned if item in returned.items else self._shares[item.job.key], [item])

    def take(self, max_tokens: int, max_items: int, *, untried: bool, space: str, idle: bool) -> list[Item]:
        """Remove and return the items of the next batch, see `PoolQueue.take`."""
        batch = _Filling(max_tokens, max_items)
        # Shares whose other items cannot go now.
        passed: list[Share] = []
        share: Share | None = self._returned if self._returned.items else self._in_turn()
        while share is not None and not batch.full:
            first = len(batch.items)
            credit = share.credit if len(self._shares) > 1 else inf
            turn_ends = False
            for item in share.items:
                if untried and item.failed_before:
                    continue
                if (item.deaths and not idle) or not item.accepts(space):
                    continue
                charge = batch.charge(item)
                turn_ends = charge > credit
                if turn_ends or not batch.add(item):
                    break
                credit -= charge
                if batch.full:
                    break
            if credit < inf:
                share.credit = credit
            self._remove(share, batch.items[first:])
            if turn_ends:
                self._end_turn(share)
            elif not batch.full and share.items and share is not self._returned:
                passed.append(self._shares.pop(share.key))
            share = self._in_turn()
        for share in reversed(passed):
            self._shares[share.key] = share
            self._shares.move_to_end(share.key, last=False)
        return batch.items

    def _in_turn(self) -> Share | None:
        return next(iter(self._shares.values())) if self._shares else None

    def _end_turn(self, share: Share) -> None:
        share.credit += QUANTUM
        self._shares.move_to_end(share.key)

    def _remove(self, share: Share, items: Sequence[Item]) -> None:
        tokens = 0
        for item in items:
            del share.items[item]
            tokens += item.cost
        share.tokens -= tokens
        self.tokens -= tokens
        self.items -= len(items)
        if not share.items and share is not self._returned:
            # Credit is not saved up while nothing waits.
            del self._shares[share.key]
