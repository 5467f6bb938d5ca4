"""The I/O around a pool's queue: hands batches to replicas and decides what becomes of each outcome."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from router.errors import Internal, RouterError, SpaceMismatch, TimedOut, Unavailable
from router.items import Batch, Gather, Item, Place
from router.observe.metrics import Metrics
from router.pool.dispatcher import Dispatcher
from router.pool.failures import client_error
from router.pool.hold import Hold
from router.pool.observer import PoolObserver
from router.pool.queue import PoolQueue
from router.pool.replica import UP, Draining, Overloaded, Rejected, Replica, ReplicaFailed, State
from router.pool.retry_budget import RetryBudget
from router.pool.suspects import Suspects, refusal_of
from workers.shared import contract

log = logging.getLogger(__name__)

# Seconds after which work that nobody could take is worth sending again.
RETRY_AFTER = 2
# An item is tried three times in all.
MAX_RETRIES = 2
# There are queries for this long after the last one came.
QUERIES_SECONDS = 2.0

Clock = Callable[[], float]


class Pool:
    """One pool: its queue, its replicas, its batches in flight.

    No task waits for work: `dispatch` runs whenever there may be something to hand out, which is when
    items were admitted or left, when a lane is free again and when a replica comes up.

    While no replica is up, work is refused, or with `hold_seconds` waits so long for one.
    """

    def __init__(
        self,
        name: contract.PoolName,
        replicas: Sequence[Replica],
        queue: PoolQueue,
        batch_tokens: int,
        batch_items: int,
        clock: Clock = time.monotonic,
        observer: PoolObserver | None = None,
        hold_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.replicas = tuple(replicas)
        self.queue = queue
        self.in_flight: dict[Batch, asyncio.Task[None]] = {}
        self.requested_tokens = 0.0
        self._dispatcher = Dispatcher(queue, batch_tokens, batch_items)
        self._suspects = Suspects()
        self._clock = clock
        self._observer = observer or PoolObserver(Metrics().pool(name), None, clock)
        self._retries = RetryBudget(sum(replica.lanes for replica in self.replicas), clock())
        self._last_query = -math.inf
        self._dispatching = False
        self._sparing = False
        self._hold = Hold(hold_seconds, clock, self._held_too_long)

    @property
    def ready(self) -> bool:
        """Whether any replica takes work now, or soon will."""
        now = self._clock()
        return any(replica.usable(now) for replica in self.replicas)

    @property
    def up(self) -> bool:
        """Whether any replica is up, even if it is left alone for a moment: accepted work waits for it."""
        return any(replica.state in UP for replica in self.replicas)

    @property
    def spaces(self) -> list[str]:
        """The vector spaces that it serves: one, or two during an upgrade."""
        return sorted({replica.space for replica in self.replicas if replica.state in UP and replica.info})

    @property
    def holds(self) -> bool:
        """Whether work waits here until a replica is up, since none is."""
        return self._hold.seconds > 0 and not self.up

    def unavailable(self) -> Unavailable:
        """The error for work that this pool cannot take now."""
        now = self._clock()
        trials = [
            replica.breaker.open_until - now for replica in self.replicas if replica.state is State.READY
        ]
        return Unavailable(
            f"no replica of the pool {self.name} is ready; try again shortly",
            retry_after=max(1, math.ceil(min(trials, default=RETRY_AFTER))),
        )

    def came(self, tokens: float) -> None:
        """So many tokens, estimated, are asked for, whether there is room for them or not."""
        self.requested_tokens += tokens
        self._observer.came(tokens)

    def check_room(
        self, items: Sequence[Item], deadline: float, required: frozenset[str] = frozenset()
    ) -> None:
        """Raise a `RouterError` unless all of `items` can be taken together.

        `required` are the vector spaces that the client takes, empty for any.
        """
        if not self.ready and not self.holds:
            raise self.unavailable()
        if required and (spaces := self.spaces) and required.isdisjoint(spaces):
            raise self._mismatch(spaces)
        self._suspects.check(items, self._clock())
        self.queue.check_room(items, self._clock(), deadline, self._tokens_in_flight())

    def check_any_room(self, deadline: float) -> None:
        """Raise `QueueFull` when not even the smallest request can be taken; one not ready says so later."""
        if self.ready or self.holds:
            self.queue.check_any_room(self.name, self._clock(), deadline, self._tokens_in_flight())

    def admit(self, items: Sequence[Item]) -> None:
        """Let `items` wait until they are handed out, which is in the next turn of the event loop.

        Requests come in waves, since the replies of a batch are sent together. Without this the first of a
        wave would take a lane alone, and the others would wait until it is done.
        """
        now = self._clock()
        if not all(item.bulk for item in items):
            self._last_query = now
        self.queue.admit(items, now)
        if self.holds:
            self._hold.begin(items)
        self._dispatch_soon()

    def dispatch(self) -> None:
        """Hand out batches while there is work, and a replica with a free lane."""
        while self.queue.items:
            now = self._clock()
            beside_queries = now - self._last_query < QUERIES_SECONDS
            replica, batch, expired = self._dispatcher.next(self.replicas, now, beside_queries=beside_queries)
            for item in expired:
                item.gather.fail(TimedOut("the request's time ran out before its turn came"), now)
            if replica is not None and batch is not None:
                self._start(replica, batch, now)
            elif not expired:
                # Whatever ended the sparing of a replica, nothing else may happen then.
                if now < self._dispatcher.spares_until and not self._sparing:
                    self._sparing = True
                    self._dispatch_at(self._dispatcher.spares_until)
                return

    def _dispatch_soon(self) -> None:
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._dispatching = False
        self.dispatch()

    def forget(self, items: Sequence[Item]) -> None:
        """Nobody waits for `items` any more: wherever they are, drop them."""
        self.queue.cancel(items, self._clock())
        for item in items:
            self._hold.forget(item.gather)
            if item.place is Place.TAKEN and item.batch is not None:
                item.place = Place.DONE
                item.batch.leave(item, unwanted=True)
        if self.queue.items:
            # What stands behind them may have waited only because of them.
            self._dispatch_soon()

    def replicas_changed(self) -> None:
        """Serve what waits, or hold or refuse it when nobody is left to serve it."""
        now = self._clock()
        for replica in self.replicas:
            # Those that it is slower than may be gone.
            if replica.pace.slow:
                self._judge(replica)
        if self.up:
            self._keep_spaces(self.queue.waiting())
            self._hold.end()
            self.queue.release(now)
            self.dispatch()
        elif self.holds:
            self.queue.hold()
            self._hold.begin(self.queue.waiting())
        else:
            for item in self.queue.waiting():
                item.gather.fail(self.unavailable(), now)

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        """Use these from now on; what one that is left out has been given, it still finishes."""
        self.replicas = tuple(replicas)
        # Those that are left out may still die with what they have.
        self._retries.resize(max(len(self.in_flight), sum(replica.lanes for replica in self.replicas)))
        self.replicas_changed()

    def leave(self) -> None:
        """The pool is no more: what its replicas have been given they still finish, nothing else is done."""
        self._hold.end()
        self._hold.seconds = 0.0
        self.set_replicas([])

    async def close(self) -> None:
        """End the batches in flight."""
        self._hold.end()
        tasks = list(self.in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _mismatch(self, spaces: Sequence[str]) -> SpaceMismatch:
        return SpaceMismatch(
            f"the pool {self.name} serves the vector space {' and '.join(spaces)}; "
            "x-require-vector-space names another"
        )

    def _keep_spaces(self, items: Sequence[Item]) -> None:
        """Restart requests whose vector space is no longer served."""
        spaces = self.spaces
        for gather in dict.fromkeys(item.gather for item in items):
            if gather.closed or not spaces or any(gather.takes(self.name, space) for space in spaces):
                continue
            required = gather.required_of(self.name)
            if required and required.isdisjoint(spaces):
                gather.fail(self._mismatch(spaces), self._clock())
            else:
                self.queue.put_back(gather.start_over(self.name))

    def _tokens_in_flight(self) -> int:
        return sum(replica.tokens_in_flight for replica in self.replicas)

    def _start(self, replica: Replica, batch: Batch, now: float) -> None:
        self._retries.earn()
        self._observer.taken(batch, now)
        batch.space = replica.space
        for item in batch.items:
            item.gather.taken_at = now
            item.gather.spaces.setdefault(self.name, batch.space)
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
        instance = replica.info.instance if replica.info else ""
        try:
            with self._observer.at(replica, batch):
                reason = await replica.encode(batch, self._deliver)
            self._dispatcher.ordinary = replica.pace
            self._judge(replica)
            if failed := batch.unfinished():
                self._retry(failed, "item_failed", reason)
        except Overloaded as overloaded:
            until = replica.pause(overloaded.seconds, self._clock(), bulk=batch.bulk)
            self._put_back(batch.unfinished(), "overloaded")
            self._dispatch_at(until)
        except Draining:
            replica.draining()
            self._put_back(batch.unfinished(), "draining")
        except ReplicaFailed as error:
            log.warning("%s; %d items unfinished", error, batch.wanted)
            if error.perhaps_dead and await replica.has_died(instance):
                self._suspect(batch.unfinished(), instance)
            self._retry(batch.unfinished(), "replica_failed", str(error))
            self._dispatch_at(replica.breaker.open_until)
        except Rejected as error:
            log.error("replica %s refused a batch: %s. This is a bug.", replica.address, error)
            self._fail(batch.unfinished(), Internal("a worker refused the batch"))
        except Exception:
            log.exception("a batch ended in an error that nobody foresaw. This is a bug.")
            self._fail(batch.unfinished(), Internal("the router failed"))

    def _judge(self, replica: Replica) -> None:
        """Hold the pace of `replica` against those that could have its work; alone it is not slow."""
        now = self._clock()
        others = [
            other.pace
            for other in self.replicas
            if other is not replica and other.state is State.READY and other.usable(now)
        ]
        if replica.pace.compare(others):
            log.warning("replica %s of pool %s is %s", replica.address, self.name, _PACES[replica.pace.slow])

    def _dispatch_at(self, moment: float) -> None:
        """Dispatch when a replica that is left alone takes work again, which is at `moment`."""
        # uvloop counts from the beginning of a turn and in whole milliseconds, so its timers may be early.
        # Whoever looks too early finds the replica still left alone, so it is made sure here that it is
        # time: by one look at the clock, since between two the moment may come and nobody dispatch.
        seconds = moment - self._clock()
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self._dispatch_at, moment)
        else:
            self._sparing = False
            self.dispatch()

    def _deliver(self, item: Item, frame: contract.Frame) -> None:
        """An item's frame has come, is as it should be, and ends it."""
        if item.batch is None:
            return
        if isinstance(frame, contract.Vector):
            now = self._clock()
            if item.gather.spaces.get(self.name) != item.batch.space:
                # Its request has started over in another vector space since.
                self._put_back([item], "other_space")
                return
            if item.deaths:
                self._suspects.clear(item)
            item.batch.leave(item)
            self.queue.drained(item, now)
            self._observer.served(frame)
            item.gather.resolve(item, frame, now)
        else:
            self._fail([item], client_error(item, frame))

    def _suspect(self, items: Sequence[Item], instance: str) -> None:
        """The process `instance` died with `items`: each of them, or a copy that waits, may be the cause."""
        now = self._clock()
        for item in items:
            if error := self._suspects.died(item, instance, now):
                log.error("%s", error)
                self._fail([item], error)
        for item in self._suspects.refused(self.queue.waiting(), now):
            self._fail([item], refusal_of(item))

    def _retry(self, items: Sequence[Item], kind: str, reason: str) -> None:
        """Another try for `items` of one batch, as far as they and the pool have any left."""
        if items and not self._retries.spend(self._clock()):
            self._fail(items, Unavailable("too much is failing to try again", retry_after=RETRY_AFTER))
        for item in items:
            item.tries += 1
            if item.tries > MAX_RETRIES:
                log.error("an item failed %d times, the last: %s", item.tries, reason)
                self._fail([item], Internal(f"{item.field}: failed {item.tries} times"))
        self._put_back(items, kind)

    def _put_back(self, items: Sequence[Item], kind: str) -> None:
        """Return those of `items` that are still wanted to the queue, if anybody serves it or will."""
        holds = self.holds
        if not self.up and not holds:
            self._fail(items, self.unavailable())
        wanted = []
        for item in items:
            if item.batch is not None:
                item.batch.leave(item)
                wanted.append(item)
        self.queue.put_back(wanted)
        self._keep_spaces(wanted)
        if holds:
            self._hold.begin(wanted)
        self._observer.put_back(wanted, kind)

    def _held_too_long(self, gather: Gather) -> None:
        detail = f"no replica of the pool {self.name} came up in time ({self._hold.seconds:g} s)"
        gather.fail(Unavailable(f"{detail}; try again later", retry_after=RETRY_AFTER), self._clock())

    def _fail(self, items: Sequence[Item], error: RouterError) -> None:
        now = self._clock()
        for item in items:
            item.gather.fail(error, now)


_PACES = {
    True: "far slower than the others; it gets one batch at a time",
    False: "no longer slow, or alone",
}
