"""The I/O around a pool's queue: hands batches to replicas and decides what becomes of each outcome."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from router.errors import (
    Internal,
    Invalid,
    MediaInvalid,
    RouterError,
    TimedOut,
    TokenLimitExceeded,
    Unavailable,
)
from router.item import Batch, Item, Place
from router.queue import PoolQueue
from router.replica import Draining, Overloaded, Rejected, Replica, ReplicaFailed, State
from router.retries import RetryBudget
from workers import contract

log = logging.getLogger(__name__)

# Seconds after which work that nobody could take is worth sending again.
RETRY_AFTER = 2
# An item is tried three times in all.
MAX_RETRIES = 2
# Spreading a request over idle replicas in batches smaller than this costs more than it gains.
SMALLEST_SHARE_TOKENS = 256

Clock = Callable[[], float]


class Pool:
    """One pool: its queue, its replicas, its batches in flight.

    No task waits for work: `dispatch` runs whenever there may be something to hand out, which is when
    items are admitted, when a lane is free again and when a replica comes up.
    """

    def __init__(
        self,
        name: contract.PoolName,
        replicas: Sequence[Replica],
        queue: PoolQueue,
        batch_tokens: int,
        batch_items: int,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.replicas = tuple(replicas)
        self.queue = queue
        self.in_flight: dict[Batch, asyncio.Task[None]] = {}
        self._batch_tokens = batch_tokens
        self._batch_items = batch_items
        self._clock = clock
        self._retries = RetryBudget(sum(replica.lanes for replica in self.replicas), clock())

    @property
    def ready(self) -> bool:
        """Whether any replica is, or may be."""
        return any(replica.state in (State.READY, State.SUSPECT) for replica in self.replicas)

    def unavailable(self) -> Unavailable:
        """The error for work that this pool cannot take now."""
        return Unavailable(
            f"no replica of the pool {self.name} is ready; try again shortly",
            retry_after=RETRY_AFTER,
        )

    def dispatch(self) -> None:
        """Hand out batches while there is work, and a replica with a free lane."""
        while self.queue.items:
            now = self._clock()
            free = [replica for replica in self.replicas if replica.has_free_lane(now)]
            # What has failed once goes to a replica that has not, if need be to one that is busy now.
            if self.queue.retrying(self._batch_tokens) and any(replica.sound for replica in self.replicas):
                free = [replica for replica in free if replica.sound]
            if not free:
                return
            share = -(-self.queue.tokens // len(free))
            budget = min(self._batch_tokens, max(share, SMALLEST_SHARE_TOKENS))
            batch, expired = self.queue.take(budget, self._batch_items, now)
            for item in expired:
                item.gather.fail(TimedOut("the request's time ran out before its turn came"), now)
            if batch is not None:
                self._start(min(free, key=lambda replica: replica.tokens_in_flight), batch, now)

    def forget(self, items: Sequence[Item]) -> None:
        """Nobody waits for `items` any more: wherever they are, drop them."""
        self.queue.cancel(items)
        for item in items:
            if item.place is Place.TAKEN and item.batch is not None:
                item.place = Place.DONE
                item.batch.leave(item, unwanted=True)

    def replicas_changed(self) -> None:
        """Serve what waits, or refuse it when nobody is left to serve it."""
        if self.ready:
            self.dispatch()
            return
        now = self._clock()
        for item in self.queue.waiting():
            item.gather.fail(self.unavailable(), now)

    async def close(self) -> None:
        """End the batches in flight."""
        tasks = list(self.in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, replica: Replica, batch: Batch, now: float) -> None:
        self._retries.earn()
        for item in batch.items:
            item.gather.taken_at = now
        # The lane is held from here: the task itself starts only after this round of dispatching.
        replica.hold(batch)
        task = asyncio.get_running_loop().create_task(self._run(replica, batch))
        task.add_done_callback(lambda _: self._ended(replica, batch))
        batch.abort = task.cancel
        self.in_flight[batch] = task

    def _ended(self, replica: Replica, batch: Batch) -> None:
        replica.release(batch)
        del self.in_flight[batch]
        self._fail(batch.unfinished(), Unavailable("the router is stopping", retry_after=RETRY_AFTER))
        self.dispatch()

    async def _run(self, replica: Replica, batch: Batch) -> None:
        """See one batch through on one replica; each of its items ends, or is back in the queue."""
        try:
            await replica.encode(batch, self._deliver)
        except Overloaded:
            pause = replica.pause(self._clock())
            asyncio.get_running_loop().call_later(pause, self.dispatch)
            self._put_back(batch.unfinished())
        except Draining:
            replica.draining()
            self._put_back(batch.unfinished())
        except ReplicaFailed as error:
            log.warning("%s; %d items unfinished", error, batch.wanted)
            self._retry(batch.unfinished(), str(error))
        except Rejected as error:
            log.error("replica %s refused a batch: %s. This is a bug.", replica.address, error)
            self._fail(batch.unfinished(), Internal("a worker refused the batch"))
        except Exception:
            log.exception("a batch ended in an error that nobody foresaw. This is a bug.")
            self._fail(batch.unfinished(), Internal("the router failed"))

    def _deliver(self, item: Item, frame: contract.Frame) -> None:
        """An item's frame has come, and is as it should be."""
        if item.batch is None:
            return
        if isinstance(frame, contract.Vector):
            item.batch.leave(item)
            item.gather.resolve(item, frame, self._clock())
        elif frame.code == "internal":
            self._retry([item], frame.message)
            self.dispatch()
        else:
            self._fail([item], client_error(item, frame))

    def _retry(self, items: Sequence[Item], reason: str) -> None:
        """Another try for `items`, as far as they and the pool have any left."""
        if items and not self._retries.spend(self._clock()):
            self._fail(items, Unavailable("too much is failing to try again", retry_after=RETRY_AFTER))
        for item in items:
            item.tries += 1
            if item.tries > MAX_RETRIES:
                log.error("an item failed %d times, the last: %s", item.tries, reason)
                self._fail([item], Internal(f"{item.field}: failed {item.tries} times"))
        self._put_back(items)

    def _put_back(self, items: Sequence[Item]) -> None:
        """Return those of `items` that are still wanted to the queue, if there is anybody to serve it."""
        if not self.ready:
            self._fail(items, self.unavailable())
        wanted = []
        for item in items:
            if item.batch is not None:
                item.batch.leave(item)
                wanted.append(item)
        self.queue.put_back(wanted)

    def _fail(self, items: Sequence[Item], error: RouterError) -> None:
        now = self._clock()
        for item in items:
            item.gather.fail(error, now)


def client_error(item: Item, failure: contract.Failure) -> RouterError:
    """What the client reads of an item's own failure."""
    detail = f"{item.field}: {failure.message}"
    match failure.code:
        case "token_limit":
            return TokenLimitExceeded(detail)
        case "media_invalid":
            return MediaInvalid(detail)
        case "unsupported" | "invalid":
            return Invalid.field(item.field, failure.message, failure.code)
        case _:
            return Internal(detail)
