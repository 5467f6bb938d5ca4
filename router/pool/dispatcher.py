"""All decisions of one pool, without I/O: admission, dispatch, and what each outcome leads to.

`Pool` runs it: it passes the time, starts a task for each batch, and calls back when `wake_at` says so.
"""

import logging
import math
from collections.abc import Sequence

from triptych.router.errors import Internal, RouterError, SpaceMismatch, Unavailable
from triptych.router.items import Batch, Item, ItemState, Priority
from triptych.router.pool.call import (
    CallFailed,
    ConnectionLost,
    ConnectionRefused,
    Draining,
    EngineDied,
    Overloaded,
    Rejected,
    ReplicaFailed,
    SpaceChanged,
    TokenRefused,
)
from triptych.router.pool.choice import Choice
from triptych.router.pool.failures import client_error
from triptych.router.pool.hold import Hold
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import UP, Replica, State
from triptych.router.pool.retry_budget import RetryBudget
from triptych.router.pool.suspects import Suspects
from triptych.workers.shared import contract

log = logging.getLogger(__name__)

# Seconds after which a refused request is worth sending again.
RETRY_AFTER = 2
# An item is tried three times in all.
MAX_RETRIES = 2
# Queries count as present for this long after the last one.
QUERIES_SECONDS = 2.0


class Dispatcher:
    """Queue, replicas and batches in flight of one pool. Times are arguments.

    While no replica is up, work is refused, or with `hold_seconds` held for so long.
    """

    def __init__(
        self,
        name: contract.PoolName,
        replicas: Sequence[Replica],
        queue: PoolQueue,
        batch_tokens: int,
        batch_items: int,
        observer: PoolObserver,
        now: float,
        hold_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.replicas = tuple(replicas)
        self.queue = queue
        self.in_flight: set[Batch] = set()
        self.hold = Hold(hold_seconds)
        self._choice = Choice(queue, batch_tokens, batch_items)
        self._suspects = Suspects()
        self._observer = observer
        self._retries = RetryBudget(sum(replica.lanes for replica in self.replicas), now)
        self._last_query = -math.inf

    @property
    def up(self) -> bool:
        """Whether any replica is up, even with an open breaker: admitted work waits for it."""
        return any(replica.state in UP for replica in self.replicas)

    @property
    def holds(self) -> bool:
        """Whether work is held here until a replica comes up."""
        return self.hold.seconds > 0 and not self.up

    @property
    def spaces(self) -> list[str]:
        """The vector spaces that it serves: one, or two during an upgrade."""
        return sorted({replica.space for replica in self.replicas if replica.state in UP and replica.info})

    def ready(self, now: float) -> bool:
        """Whether any replica takes work, or soon will."""
        # Without `any`, whose generator was 4 % of a request's time.
        for replica in self.replicas:  # noqa: SIM110
            if replica.usable(now):
                return True
        return False

    def unavailable(self, now: float) -> Unavailable:
        """The error for work that no replica can take now."""
        trials = [
            replica.breaker.open_until - now for replica in self.replicas if replica.state is State.READY
        ]
        return Unavailable(
            f"no replica of the pool {self.name} is ready; try again shortly",
            retry_after=max(1, math.ceil(min(trials, default=RETRY_AFTER))),
        )

    def check_room(self, items: Sequence[Item], now: float, deadline: float) -> None:
        """Raise a `RouterError` unless all of `items`, of one job, can be admitted together."""
        if not self.ready(now) and not self.holds:
            raise self.unavailable(now)
        if items[0].job.required:
            for item in {item.pool: item for item in items}.values():
                if mismatch := self._mismatch(item):
                    raise mismatch
        self.queue.check_room(items, now, deadline, self._tokens_in_flight())
        # The costlier check comes last: it hashes the items.
        self._suspects.check(items, now)

    def check_any_room(self, now: float, deadline: float, key: str = "") -> None:
        """Raise `QueueFull` when not even the smallest request of `key` fits.

        Without a ready replica it does nothing: `check_room` refuses requests then.
        """
        if self.ready(now) or self.holds:
            self.queue.check_any_room(self.name, now, deadline, self._tokens_in_flight(), key)

    def admit(self, items: Sequence[Item], now: float) -> None:
        """Add `items` to the queue."""
        if any(item.priority is Priority.INTERACTIVE for item in items):
            self._last_query = now
        self.queue.admit(items, now)
        if self.holds:
            self.hold.begin(items, now)

    def next(self, now: float) -> tuple[Replica, Batch] | None:
        """The next batch and its replica, None if nothing can be dispatched.

        The batch is in flight from here until `ended`.
        """
        if not self.queue.items:
            return None
        beside_queries = now - self._last_query < QUERIES_SECONDS
        found = self._choice.next(self.replicas, now, beside_queries=beside_queries)
        if found is not None:
            self._start(*found, now)
        return found

    def wake_at(self, now: float) -> float:
        """When the next hold, pause, open breaker, sparing or presence of queries ends; inf without any."""
        moments = [self.hold.ends_at]
        if self.queue.items:
            moments += [replica.next_end(now) for replica in self.replicas]
            ends = [self._choice.spares_until]
            if self.queue.depth(Priority.BULK)[0]:
                ends.append(self._last_query + QUERIES_SECONDS)
            moments += [end for end in ends if end > now]
        return min(moments)

    def expire(self, now: float) -> None:
        """Fail the jobs that were held for too long."""
        for job in self.hold.pop_expired(now):
            detail = f"no replica of the pool {self.name} came up within {self.hold.seconds:g} s"
            job.fail(Unavailable(f"{detail}; try again later", retry_after=RETRY_AFTER), now)

    def forget(self, items: Sequence[Item], now: float) -> None:
        """Drop `items`, wherever they are: their job is closed."""
        self.queue.cancel(items, now)
        for item in items:
            self.hold.forget(item.job)
            if item.state is ItemState.IN_FLIGHT and item.batch is not None:
                item.state = ItemState.DONE
                item.batch.remove(item, unwanted=True)

    def replicas_changed(self, now: float) -> None:
        """A replica has changed its state: what waits is served, held, or refused."""
        for replica in self.replicas:
            # The replicas that it was compared with may be gone.
            if replica.pace.slow:
                self._compare_pace(replica, now)
        if self.up:
            self._keep_spaces(self.queue.waiting(), now)
            self.hold.end()
            self.queue.measure_rate(now)
        elif self.holds:
            self.queue.forget_rate()
            self.hold.begin(self.queue.waiting(), now)
        else:
            self.fail(self.queue.waiting(), self.unavailable(now), now)

    def set_replicas(self, replicas: Sequence[Replica], now: float) -> None:
        """Use `replicas` from now on; others finish what they have."""
        self.replicas = tuple(replicas)
        lanes = sum(replica.lanes for replica in self.replicas)
        # Replicas that are left out may still die with what they have.
        self._retries.resize(max(len(self.in_flight), lanes))
        self.replicas_changed(now)

    def remove(self, now: float) -> None:
        """The pool is no longer named: refuse what waits, hold nothing, use no replica."""
        self.hold.end()
        self.hold.seconds = 0.0
        self.set_replicas([], now)

    def deliver(self, batch: Batch, item: Item, frame: contract.Frame, now: float) -> None:
        """Handle a checked frame. A vector ends `item`, a failure ends its job.

        An item that failed inside the engine stays in `batch`; `answered` tries it again.
        """
        batch.unanswered.discard(item)
        if isinstance(frame, contract.Failure) and frame.code == "internal":
            batch.failures.append(frame.message)
        elif item.batch is not batch:
            # No client waits for it any more.
            return
        elif isinstance(frame, contract.Failure):
            self.fail([item], client_error(item, frame), now)
        elif isinstance(frame, contract.Vector):
            if item.job.spaces.get(item.pool) != item.space_of(batch.space):
                # The job has started over in another vector space.
                self._put_back([item], "other_space", now)
                return
            if item.deaths:
                self._suspects.clear(item)
            batch.remove(item)
            self.queue.drained(item, now)
            self._observer.served(frame)
            item.job.resolve(item, frame, now)

    def answered(self, replica: Replica, batch: Batch, tokens: int, started: float, now: float) -> None:
        """Every item of `batch` has had a frame; `tokens` were in flight at `replica` when it was sent."""
        replica.record_answer(batch, tokens, now - started)
        self._choice.last_pace = replica.pace
        self._compare_pace(replica, now)
        if failed := batch.unfinished():
            self._put_back_if_tries_left(failed, "item_failed", "".join(batch.failures[-1:]), now)

    def declined(self, replica: Replica, batch: Batch, error: CallFailed, now: float) -> None:
        """`replica` did nothing of `batch`: it is overloaded, stopping, or calls the batch invalid."""
        match error:
            case Overloaded():
                replica.pause(batch.priority, error.seconds, now)
            case Draining():
                replica.draining()
            case Rejected():
                log.error("replica %s rejected a batch: %s. This is a bug.", replica.address, error)
                self.fail(batch.unfinished(), Internal("a worker rejected the batch"), now)
                return
        self._put_back(batch.unfinished(), error.outcome, now)

    def replica_failed(self, replica: Replica, error: ReplicaFailed, started: float, now: float) -> None:
        """`replica` failed. `put_back_failed` follows, once it is known whether its process died."""
        log.warning("replica %s: %s", replica.address, error)
        match error:
            case ConnectionRefused():
                replica.down("connection refused", gone=True)
            case ConnectionLost():
                replica.suspect(str(error))
            case EngineDied():
                replica.down(str(error), gone=True)
            case SpaceChanged() | TokenRefused():
                replica.down(str(error))
        replica.record_failure(str(error), started, now)

    def put_back_failed(
        self, batch: Batch, error: ReplicaFailed, dead_instance: str | None, now: float
    ) -> None:
        """Put the unfinished items of `batch` back, as far as they have tries left.

        `dead_instance` is the worker process that died with them, if one did. Items whose clients have left
        are suspects too. An item that has now seen two deaths fails, and so do its waiting copies.
        """
        if dead_instance is not None:
            held = [item for item in batch.items if item.batch is batch or item in batch.unanswered]
            for item, refusal in self._suspects.died(held, self.queue.waiting(), dead_instance, now):
                log.error("%s", refusal)
                self.fail([item], refusal, now)
        self._put_back_if_tries_left(batch.unfinished(), "replica_failed", str(error), now)

    def ended(self, replica: Replica, batch: Batch, now: float) -> None:
        """The task of `batch` has ended, however it did."""
        replica.release(batch)
        self.in_flight.discard(batch)
        self.fail(batch.unfinished(), Unavailable("the router is stopping", retry_after=RETRY_AFTER), now)

    def fail(self, items: Sequence[Item], error: RouterError, now: float) -> None:
        """End the jobs of `items` with `error`."""
        for item in items:
            item.job.fail(error, now)

    def _start(self, replica: Replica, batch: Batch, now: float) -> None:
        self._retries.earn()
        self._observer.taken(batch, now)
        batch.space = replica.space
        for item in batch.items:
            item.job.started_at = now
            item.job.spaces.setdefault(item.pool, item.space_of(batch.space))
        replica.acquire(batch)
        self.in_flight.add(batch)

    def _tokens_in_flight(self) -> int:
        return sum(replica.tokens_in_flight for replica in self.replicas)

    def _mismatch(self, item: Item) -> SpaceMismatch | None:
        """The error for an item whose client accepts no vector space that is served; None if it does."""
        required = item.job.required_of(item.pool)
        served = [item.space_of(space) for space in self.spaces]
        if not required or not served or not required.isdisjoint(served):
            return None
        return SpaceMismatch(
            f"the pool {item.pool} serves the vector space {' and '.join(served)}; "
            "x-require-vector-space names another"
        )

    def _keep_spaces(self, items: Sequence[Item], now: float) -> None:
        """Start jobs over whose vector space is no longer served."""
        spaces = self.spaces
        for item in {(item.job, item.pool): item for item in items}.values():
            if item.job.closed or not spaces or any(map(item.accepts, spaces)):
                continue
            if mismatch := self._mismatch(item):
                item.job.fail(mismatch, now)
            else:
                self.queue.put_back(item.job.start_over(item.pool))

    def _compare_pace(self, replica: Replica, now: float) -> None:
        """Compare the pace of `replica` with those that could have its work; alone it is not slow."""
        others = [
            other.pace
            for other in self.replicas
            if other is not replica and other.state is State.READY and other.usable(now)
        ]
        if replica.pace.compare(others):
            text = "slow: it gets one batch at a time" if replica.pace.slow else "no longer slow"
            log.warning("replica %s of pool %s is %s", replica.address, self.name, text)

    def _put_back_if_tries_left(self, items: Sequence[Item], kind: str, reason: str, now: float) -> None:
        """Put `items` of one batch back, as far as they and the pool have tries left."""
        if items and not self._retries.spend(now):
            self.fail(items, Unavailable("too many failures to try again", retry_after=RETRY_AFTER), now)
        for item in items:
            item.tries += 1
            if item.tries > MAX_RETRIES:
                log.error("an item failed %d times, the last: %s", item.tries, reason)
                self.fail([item], Internal(f"{item.field}: failed {item.tries} times"), now)
        self._put_back(items, kind, now)

    def _put_back(self, items: Sequence[Item], kind: str, now: float) -> None:
        """Return those of `items` that are still in a batch to the queue, if any replica may serve them."""
        wanted = []
        for item in items:
            if item.batch is not None:
                item.batch.remove(item)
                wanted.append(item)
        self.queue.put_back(wanted)
        self._observer.put_back(wanted, kind)
        if self.holds:
            self.hold.begin(wanted, now)
        elif not self.up:
            self.fail(wanted, self.unavailable(now), now)
        self._keep_spaces(wanted, now)
