"""The waiting items of one priority: their order, and the batches made of them (pure).

API keys share by deficit round robin (Shreedhar and Varghese, 1996), counted in tokens. In its turn a key
sends what its credit pays for. A key without enough credit for its next item gets `QUANTUM` more, and the
next key has its turn. A key that waits alone is not limited, so without API keys items go in order
of arrival. Items that come back from a replica go before all others.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
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


class Share:
    """The waiting items of one key, in order, their tokens, and the credit of the key."""

    __slots__ = ("credit", "items", "key", "tokens")

    def __init__(self, key: str, credit: float = QUANTUM) -> None:
        self.key = key
        self.credit = credit
        self.items: OrderedDict[Item, None] = OrderedDict()
        self.tokens = 0


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
        """Most tokens that go before `tokens` more of `key` have gone.

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

    def take(
        self, max_tokens: int, max_items: int, now: float, *, untried: bool, space: str, idle: bool
    ) -> tuple[list[Item], list[Item]]:
        """Remove the items of the next batch, see `PoolQueue.take`; also returns those that have expired."""
        items: list[Item] = []
        expired: list[Item] = []
        queries: set[Query] = set()
        tokens = size = 0
        full = False
        # Shares whose other items cannot go now.
        passed: list[Share] = []
        share: Share | None = self._returned if self._returned.items else self._in_turn()
        while share is not None and not full:
            first = len(items)
            credit = share.credit if len(self._shares) > 1 else inf
            turn_ends = False
            for item in share.items:
                job = item.job
                if job.deadline <= now:
                    expired.append(item)
                    continue
                if untried and item.failed_before:
                    continue
                if (item.deaths and not idle) or not job.accepts(item.pool, space):
                    continue
                charge, query = item.cost, item.query
                if query is not None and query not in queries:
                    charge += query.cost
                if charge > credit:
                    turn_ends = True
                    break
                alone = item.deaths > 0 or item.tries >= TRIES_BEFORE_ALONE
                tokens += item.cost
                size += size_of(item.wire.content)
                if query is not None and query not in queries:
                    queries.add(query)
                    size += size_of(query.content)
                if items and (
                    alone or tokens > max_tokens or size > MAX_BATCH_BYTES or len(items) == max_items
                ):
                    full = True
                    break
                items.append(item)
                credit -= charge
                if alone:
                    full = True
                    break
            if credit < inf:
                share.credit = credit
            self._remove(share, items[first:])
            if turn_ends:
                self._end_turn(share)
            elif not full and share.items and share is not self._returned:
                passed.append(self._shares.pop(share.key))
            share = self._in_turn()
        for share in reversed(passed):
            self._shares[share.key] = share
            self._shares.move_to_end(share.key, last=False)
        return items, expired

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
