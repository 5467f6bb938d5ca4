"""Which batch goes to which replica next (pure)."""

import math
import sys
from collections.abc import Sequence

from triptych.router.items import Batch, Priority
from triptych.router.pool.pace import Pace
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica

# A replica is spared for this long so that it becomes idle for a suspect; then it serves others as long.
SPARE_SECONDS = 1.0
# Queries count as present for this long after the last one.
QUERIES_SECONDS = 2.0
# Batches smaller than this cost more in calls than spreading the work gains, whatever the engine.
SMALLEST_SHARE_TOKENS = 256

Dispatched = tuple[Replica, Batch]


class Choice:
    """Takes batches for the replicas of one pool out of its queue.

    `last_pace` is the pace of the replica that last finished a batch, used for unmeasured replicas.
    `last_query` is when an interactive item was last admitted.
    `spares_until` is when a replica that is spared for a suspect takes other work again.
    """

    def __init__(self, queue: PoolQueue, batch_tokens: int, batch_items: int) -> None:
        self.last_pace = Pace()
        self.last_query = -math.inf
        self.spares_until = -math.inf
        self._queue = queue
        self._batch_tokens = batch_tokens
        self._batch_items = batch_items

    def next(self, replicas: Sequence[Replica], now: float) -> Dispatched | None:
        """The next batch and its replica, None if nothing can be sent."""
        beside_queries = now - self.last_query < QUERIES_SECONDS
        bulk_waits = self._queue.depth(Priority.BULK)[0] > 0
        for_bulk = [
            replica
            for replica in (replicas if bulk_waits else ())
            if replica.has_free_lane(now, Priority.BULK)
            and takes_bulk(replica, beside_queries=beside_queries)
        ]
        first = self._queue.next_priority(self._batch_tokens, bulk_allowed=bool(for_bulk))
        if first is None:
            return None
        spared: Replica | None = None
        head = self._queue.head(first)
        order = [first]
        if first is Priority.BULK or (head is not None and head.deaths):
            # Bulk or a suspect that waits for its replica does not hold up the other priority.
            order += [other for other in Priority if other is not first]
        for priority in order:
            able = for_bulk
            if priority is Priority.INTERACTIVE:
                able = [replica for replica in replicas if replica.has_free_lane(now)]
            able, head_too, spare = self._able_for_head(able, replicas, now, priority)
            spared = spared or spare
            able = [replica for replica in able if replica is not spared]
            if found := self._take(able, priority, beside_queries=beside_queries, head_too=head_too):
                return found
        return None

    def ends_after(self, now: float) -> list[float]:
        """When a replica is spared no longer, and when waiting bulk may have more lanes."""
        ends = [self.spares_until]
        if self._queue.depth(Priority.BULK)[0]:
            ends.append(self.last_query + QUERIES_SECONDS)
        return [end for end in ends if end > now]

    def _take(
        self, able: list[Replica], priority: Priority, *, beside_queries: bool, head_too: bool
    ) -> Dispatched | None:
        """The next batch of a priority for one of `able`."""
        _, waiting = self._queue.depth(priority)
        is_bulk = priority is Priority.BULK
        while able and waiting:
            replica = min(able, key=self._expected)
            share = share_of(waiting, replica, able, beside_queries=is_bulk and beside_queries)
            batch = self._queue.take(
                min(self._batch_tokens, share),
                self._batch_items,
                priority,
                untried=not head_too,
                space=replica.space,
                idle=not replica.lanes_in_use,
            )
            if batch is not None:
                return replica, batch
            # The waiting jobs may have begun in another vector space.
            able = [other for other in able if other.space != replica.space]
        return None

    def _able_for_head(
        self, able: list[Replica], replicas: Sequence[Replica], now: float, priority: Priority
    ) -> tuple[list[Replica], bool, Replica | None]:
        """Replicas that may take the next batch, and whether it may include the first waiting item.

        If not, that item stays first and later ones are taken. The third is a replica to spare: it gets
        nothing of any priority, so that it becomes idle.
        """
        head = self._queue.head(priority)
        if head is None or not head.failed_before:
            return able, True, None
        usable = [replica for replica in replicas if head.accepts(replica.space)]
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
        # A retry goes to a replica whose last batch did not fail, even if that is busy now.
        sound = [replica for replica in able if replica.sound and replica in usable]
        return sound or able, bool(sound), None

    def _spare(self, free: list[Replica], now: float) -> Replica | None:
        """The replica to spare for a suspect. Sparing pauses in turns: a long text may keep it busy."""
        if now >= self.spares_until + SPARE_SECONDS:
            self.spares_until = now + SPARE_SECONDS
        if now >= self.spares_until:
            return None
        return min(free, key=lambda replica: replica.lanes_in_use, default=None)

    def _expected(self, replica: Replica) -> tuple[float, int]:
        """Estimated time for the tokens in flight at `replica`; an unmeasured one has the last pace.

        If an unmeasured replica counted as fast, a new one would get the next batches of every router.
        """
        pace = replica.pace if replica.pace.seconds_per_token else self.last_pace
        return pace.seconds(replica.tokens_in_flight), replica.tokens_in_flight


def takes_bulk(replica: Replica, *, beside_queries: bool) -> bool:
    """Whether bulk may have a lane of `replica`: one of several lanes is always kept for queries.

    A query waits at least for the engine step in progress. So while there are queries, bulk has one lane. A
    second would keep the engine busy between two batches, which is a fifth of the bulk rate with the tiny
    model on a CPU and less where steps take longer; but queries would wait for two batches.
    """
    return replica.bulk_lanes_in_use < (1 if beside_queries else max(1, replica.lanes - 1))


def share_of(waiting: int, replica: Replica, able: Sequence[Replica], *, beside_queries: bool) -> int:
    """Size in tokens of the next batch for `replica`, one of `able`, when `waiting` tokens wait.

    It is half of an equal share of all work: while the engine runs one half, the router and the worker's
    front end prepare the other. It is at least what hardly makes a batch slower, and for bulk
    `beside_queries` exactly that.
    """
    nearly_free = max(replica.pace.tokens_until_twice(), SMALLEST_SHARE_TOKENS)
    there = waiting + sum(other.tokens_in_flight for other in able)
    share = max(math.ceil(there / (2 * len(able))), nearly_free)
    return int(min(nearly_free if beside_queries else share, sys.maxsize))
