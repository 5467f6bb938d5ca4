"""The dispatcher: from what waits and the state of the replicas to the next batch (pure)."""

from collections.abc import Sequence
from typing import NamedTuple

from router.item import Batch, Item
from router.pace import Pace
from router.queue import PoolQueue
from router.replica import Replica
from router.shares import share_of, takes_bulk


class Dispatched(NamedTuple):
    """A batch for a replica, or None for both; and the items met on the way whose deadline has passed."""

    replica: Replica | None
    batch: Batch | None
    expired: list[Item]


NOTHING = Dispatched(None, None, [])


class Dispatcher:
    """Takes batches for the replicas of one pool out of its queue.

    `ordinary` is the pace of the replica that last finished a batch: the default for unmeasured ones.
    """

    def __init__(self, queue: PoolQueue, batch_tokens: int, batch_items: int) -> None:
        self.ordinary = Pace()
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
        bulk = self._queue.next_class(self._batch_tokens, bulk_too=bool(for_bulk))
        if bulk is None:
            return NOTHING
        able = for_bulk if bulk else [replica for replica in replicas if replica.has_free_lane(now)]
        able, head_too = self._able_for_head(able, replicas, bulk=bulk)
        _, waiting = self._queue.depth(bulk=bulk)
        while able:
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
        self, able: list[Replica], replicas: Sequence[Replica], *, bulk: bool
    ) -> tuple[list[Replica], bool]:
        """Which of `able` the next batch may go to, and whether it may hold the head of its class.

        Where it may not, the head keeps its place and the batch is made of what stands behind it.
        """
        head = self._queue.head(bulk=bulk)
        if head is None or not head.failed_before:
            return able, True
        # Replicas of another vector space than that of the head's request are of no use to it.
        usable = [replica for replica in replicas if head.gather.takes(head.pool, replica.space)]
        if head.deaths:
            # A suspect has a replica to itself, one suspect at a time.
            if any(replica.quarantined for replica in replicas):
                return able, False
            free = [replica for replica in able if replica in usable]
            if idle := [replica for replica in free if not replica.lanes_in_use]:
                return idle, True
            # One replica gets nothing more until it is idle.
            spared = min(free, key=lambda replica: replica.lanes_in_use, default=None)
            return [replica for replica in able if replica is not spared], False
        if not any(replica.sound for replica in usable):
            return able, True
        # Another try goes to a replica whose last batch did not fail, even if that is busy now.
        sound = [replica for replica in able if replica.sound and replica in usable]
        return sound or able, bool(sound)

    def _expected(self, replica: Replica) -> tuple[float, int]:
        """About how long the tokens in flight at `replica` take; an unmeasured one counts as ordinary.

        Taken for a fast one, a new replica would get the next batches of every router at once.
        """
        pace = replica.pace if replica.pace.seconds_per_token else self.ordinary
        return pace.seconds(replica.tokens_in_flight), replica.tokens_in_flight
