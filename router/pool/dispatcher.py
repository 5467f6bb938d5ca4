"""All decisions of one pool, without I/O: admission, dispatch, and what each outcome leads to.

`Pool` runs it: it passes the time, starts a task for each batch, and calls back when `wake_at` says so.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

from triptych.router.errors import Internal, RouterError, Unavailable
from triptych.router.items import Batch, Item, ItemState, Job, Priority
from triptych.router.pool import call
from triptych.router.pool.call import Declined, ReplicaFailed, client_error
from triptych.router.pool.choice import Choice
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica, Replicas, State
from triptych.router.pool.retry_budget import RetryBudget
from triptych.router.pool.suspects import Suspects
from triptych.workers.shared import contract

log = logging.getLogger(__name__)

# An item is tried three times in all.
MAX_RETRIES = 2


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
        self.replicas = Replicas(replicas)
        self.queue = queue
        self.in_flight: set[Batch] = set()
        self._hold_seconds = hold_seconds
        # In the order of their ends, since all are held for the same time. To find its first entry, a plain
        # dict walks over all that were removed before it.
        self._held_until: OrderedDict[Job, float] = OrderedDict()
        self._choice = Choice(queue, batch_tokens, batch_items)
        self._suspects = Suspects()
        self.observer = observer
        self._retries = RetryBudget(self.replicas.lanes, now)

    @property
    def holds(self) -> bool:
        """Whether work is held here until a replica comes up."""
        return self._hold_seconds > 0 and not self.replicas.up

    def unavailable(self, now: float) -> Unavailable:
        """The error for work that no replica can take now."""
        detail = f"no replica of the pool {self.name} is ready; try again shortly"
        return Unavailable(detail, retry_after=self.replicas.retry_after(now))

    def check_room(self, items: Sequence[Item], now: float, deadline: float) -> None:
        """Raise a `RouterError` unless all of `items`, of one job, can be admitted together."""
        if not self.replicas.usable(now) and not self.holds:
            raise self.unavailable(now)
        if items[0].job.required:
            for item in {item.pool: item for item in items}.values():
                if mismatch := self.replicas.mismatch(item):
                    raise mismatch
        self.queue.check_room(items, now, deadline, self.replicas.tokens_in_flight)
        # The costlier check comes last: it hashes the items.
        self._suspects.check(items, now)

    def check_any_room(self, now: float, deadline: float, key: str = "") -> None:
        """Raise `QueueFull` when not even the smallest request of `key` fits.

        Without a ready replica it does nothing: `check_room` refuses requests then.
        """
        if self.replicas.usable(now) or self.holds:
            self.queue.check_any_room(self.name, now, deadline, self.replicas.tokens_in_flight, key)

    def admit(self, items: Sequence[Item], now: float) -> None:
        if any(item.priority is Priority.INTERACTIVE for item in items):
            self._choice.last_query = now
        self.queue.admit(items, now)
        if self.holds:
            self._hold(items, now)

    def next(self, now: float) -> tuple[Replica, Batch] | None:
        """The next batch and its replica, None if nothing can be dispatched.

        The batch is in flight from here until `ended`.
        """
        found = self._choice.next(self.replicas, now) if self.queue.items else None
        if found is not None:
            replica, batch = found
            self._retries.earn()
            self.observer.taken(batch, now)
            batch.space = replica.space
            for item in batch.items:
                item.job.started_at = now
                item.job.spaces.setdefault(item.pool, item.space_of(batch.space))
            replica.acquire(batch)
            self.in_flight.add(batch)
        return found

    def wake_at(self, now: float) -> float:
        """When time alone may change something; inf if it never will."""
        moments = [next(iter(self._held_until.values()), math.inf)]
        if self.queue.items:
            moments += [replica.next_end(now) for replica in self.replicas]
            moments += self._choice.ends_after(now)
        return min(moments)

    def expire(self, now: float) -> None:
        """Fail the jobs that were held for too long."""
        expired = takewhile(lambda held: held[1] <= now, self._held_until.items())
        for job in [job for job, _ in expired]:
            self._held_until.pop(job, None)
            detail = f"no replica of the pool {self.name} came up within {self._hold_seconds:g} s"
            job.fail(Unavailable(f"{detail}; try again later"), now)

    def forget(self, items: Sequence[Item], now: float) -> None:
        """Drop `items`, wherever they are: their job is closed."""
        self.queue.cancel(items, now)
        for item in items:
            self._held_until.pop(item.job, None)
            if item.state is ItemState.IN_FLIGHT and item.batch is not None:
                item.state = ItemState.DONE
                item.batch.remove(item, unwanted=True)

    def replicas_changed(self, now: float) -> None:
        """A replica has changed its state: what waits is served, held, or refused."""
        for replica in self.replicas:
            # The replicas that it was compared with may be gone.
            if replica.pace.slow:
                self.replicas.compare_pace(replica, now)
        if self.replicas.up:
            self._keep_spaces(self.queue.waiting(), now)
            self._held_until.clear()
            self.queue.measure_rate(now)
        elif self.holds:
            self.queue.forget_rate()
            self._hold(self.queue.waiting(), now)
        else:
            self.fail(self.queue.waiting(), self.unavailable(now), now)

    def set_replicas(self, replicas: Sequence[Replica], now: float) -> None:
        """Use `replicas` from now on; others finish what they have."""
        self.replicas = Replicas(replicas)
        # Replicas that are left out may still die with what they have.
        self._retries.resize(max(len(self.in_flight), self.replicas.lanes))
        self.replicas_changed(now)

    def remove(self, now: float) -> None:
        """The pool is no longer named: what waits is refused, batches in flight finish."""
        self._held_until.clear()
        self._hold_seconds = 0.0
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
            self.observer.served(frame)
            item.job.resolve(item, frame, now)

    def answered(self, replica: Replica, batch: Batch, tokens: int, started: float, now: float) -> None:
        """Every item of `batch` has had a frame; `tokens` were in flight at `replica` when it was sent."""
        replica.record_answer(batch, tokens, now - started)
        self._choice.last_pace = replica.pace
        self.replicas.compare_pace(replica, now)
        if failed := batch.unfinished():
            self._put_back_if_tries_left(failed, "item_failed", "".join(batch.failures[-1:]), now)

    def declined(self, replica: Replica, batch: Batch, error: Declined, now: float) -> None:
        """`replica` did nothing of `batch`. If it rejects the batch, each item is tried once more, alone."""
        match error.outcome:
            case contract.DRAINING:
                replica.draining()
            case call.REJECTED:
                log.error("replica %s rejected a batch (older, or a bug): %s", replica.address, error)
                if len(batch.items) == 1:
                    self.fail(batch.items, Internal("a worker rejected the input"), now)
                for item in batch.unfinished():
                    item.tries = MAX_RETRIES
            case _:
                replica.pause(batch.priority, error.seconds, now)
        self._put_back(batch.unfinished(), error.outcome, now)

    def replica_failed(self, replica: Replica, error: ReplicaFailed, started: float, now: float) -> None:
        """`replica` failed. `put_back_failed` follows, once it is known whether its process died."""
        log.warning("replica %s: %s", replica.address, error)
        match error.state:
            case State.SUSPECT:
                replica.suspect(str(error))
            case State.DOWN:
                replica.down(str(error), gone=error.gone)
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
        self.fail(batch.unfinished(), Unavailable("the router is stopping"), now)

    def fail(self, items: Sequence[Item], error: RouterError, now: float) -> None:
        for item in items:
            item.job.fail(error, now)

    def _hold(self, items: Sequence[Item], now: float) -> None:
        """Hold the jobs of `items` from now on; jobs that are held already keep their time."""
        for item in items:
            self._held_until.setdefault(item.job, now + self._hold_seconds)

    def _keep_spaces(self, items: Sequence[Item], now: float) -> None:
        """Start jobs over whose vector space is no longer served."""
        spaces = self.replicas.spaces
        for item in {(item.job, item.pool): item for item in items}.values():
            if item.job.closed or not spaces or any(map(item.accepts, spaces)):
                continue
            if mismatch := self.replicas.mismatch(item):
                item.job.fail(mismatch, now)
            else:
                self.queue.put_back(item.job.start_over(item.pool))

    def _put_back_if_tries_left(self, items: Sequence[Item], kind: str, reason: str, now: float) -> None:
        """Put `items` of one batch back, as far as they and the pool have tries left."""
        if items and not self._retries.spend(now):
            self.fail(items, Unavailable("too many failures to try again"), now)
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
        self.observer.put_back(wanted, kind)
        if self.holds:
            self._hold(wanted, now)
        elif not self.replicas.up:
            self.fail(wanted, self.unavailable(now), now)
        self._keep_spaces(wanted, now)
