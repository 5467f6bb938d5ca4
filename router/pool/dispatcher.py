"""The dispatcher: from what waits and the state of the replicas to the next batch (pure)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from router.items import Batch, Item
from router.pool.pace import Pace
from router.pool.queue import PoolQueue
from router.pool.replica import Replica
from router.pool.shares import share_of, takes_bulk

# A replica gets nothing new for this long, so that it becomes idle for a suspect; then as long anything.
SPARE_SECONDS = 1.0


class Dispatched(NamedTuple):
    """The next batch and its replica, both None if nothing can be sent; `expired` are past their deadline."""

    replica: Replica | None
    batch: Batch | None
    expired: list[Item]


NOTHING = Dispatched(None, None, [])


class Dispatcher:
    """Takes batches for the replicas of one pool out of its queue.

    `ordinary` is the pace of the replica that last finished a batch: the default for unmeasured ones.
    `spares_until` is when a replica that is spared for a suspect takes other work again.
    """

    def __init__(self, queue: PoolQueue, batch_tokens: int, batch_items: int) -> None:
        self.ordinary = Pace()
        self.spares_until = -math.inf
        self._queue = queue
        self._batch_tokens = batch_tokens
        self._batch_items = batch_items

    def next(self, replicas: Sequence[Replica], now: float, *, beside_queries: bool) -> Dispatched:
        """The next batch and its replica; no batch when nothing can be dispatched now."""
        for_bulk = [
            replica
            for replica in replicas
            if replica.has_free_lane(now, bulk=True) and takes_bulk(replica, beside_queries=beside_queries)
        ]
        first = self._queue.next_class(self._batch_tokens, bulk_too=bool(for_bulk))
        if first is None:
            return NOTHING
        spared: Replica | None = None
        head = self._queue.head(bulk=first)
        # A suspect that waits for its replica does not hold up the other class.
        for bulk in (first, not first) if head is not None and head.deaths else (first,):
            able = for_bulk if bulk else [replica for replica in replicas if replica.has_free_lane(now)]
            able, head_too, spare = self._able_for_head(able, replicas, now, bulk=bulk)
            spared = spared or spare
            able = [replica for replica in able if replica is not spared]
            found = self._take(able, now, bulk=bulk, beside_queries=beside_queries, head_too=head_too)
            if found is not NOTHING:
                return found
        return NOTHING

    def _take(
        self, able: list[Replica], now: float, *, bulk: bool, beside_queries: bool, head_too: bool
    ) -> Dispatched:
        """The next batch of a class for one of `able`."""
        _, waiting = self._queue.depth(bulk=bulk)
        while able and waiting:
            replica = min(able, key=self._expected)
            share = share_of(waiting, replica, able, beside_queries=bulk and beside_queries)
            batch, expired = self._queue.take(
                min(self._batch_tokens, share),
                self._batch_items,
                now,
                bulk=bulk,
                untried=not head_too,
                space=replica.space,
                idle=not replica.lanes_in_use,
            )
            if batch is not None or expired:
                return Dispatched(replica, batch, expired)
            # What waits may be of requests that have begun in another vector space.
            able = [other for other in able if other.space != replica.space]
        return NOTHING

    def _able_for_head(
        self, able: list[Replica], replicas: Sequence[Replica], now: float, *, bulk: bool
    ) -> tuple[list[Replica], bool, Replica | None]:
        """Replicas that may take the next batch, and whether it may include the first waiting item.

        If not, that item stays first and later ones are taken. The third is a replica that gets nothing, of
        any class, so that it becomes idle.
        """
        head = self._queue.head(bulk=bulk)
        if head is None or not head.failed_before:
            return able, True, None
        # Replicas of another vector space than that of the head's request are of no use to it.
        usable = [replica for replica in replicas if head.gather.takes(head.pool, replica.space)]
        if head.deaths:
            # A suspect has a replica to itself, one suspect at a time.
            if any(replica.quarantined for replica in replicas):
                return able, False, None
            free = [replica for replica in able if replica in usable]
            if idle := [replica for replica in free if not replica.lanes_in_use]:
                return idle, True, None
            return able, False, self._spare(free, now)
        if not any(replica.sound for replica in usable):
            return able, True, None
        # Another try goes to a replica whose last batch did not fail, even if that is busy now.
        sound = [replica for replica in able if replica.sound and replica in usable]
        return sound or able, bool(sound), None

    def _spare(self, free: list[Replica], now: float) -> Replica | None:
        """The replica to spare for a suspect, in turns: with a long text it may not be idle for minutes."""
        if now >= self.spares_until + SPARE_SECONDS:
            self.spares_until = now + SPARE_SECONDS
        if now >= self.spares_until:
            return None
        return min(free, key=lambda replica: replica.lanes_in_use, default=None)

    def _expected(self, replica: Replica) -> tuple[float, int]:
        """About how long the tokens in flight at `replica` take; an unmeasured one counts as ordinary.

        Taken for a fast one, a new replica would get the next batches of every router at once.
        """
        pace = replica.pace if replica.pace.seconds_per_token else self.ordinary
        return pace.seconds(replica.tokens_in_flight), replica.tokens_in_flight
