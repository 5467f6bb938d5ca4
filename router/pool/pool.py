"""The I/O of one pool: a task for each batch in flight, and one timer. `Dispatcher` decides."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from triptych.router.errors import Internal
from triptych.router.items import Batch, Item, ItemState
from triptych.router.pool.call import Declined, Deliver, ReplicaFailed
from triptych.router.pool.dispatcher import Dispatcher
from triptych.router.pool.replica import Replica, Replicas
from triptych.workers.shared import contract

log = logging.getLogger(__name__)

# From the last client's leaving to the end of the call; a worker's step takes half a second at most.
ABORT_SECONDS = 0.5

Clock = Callable[[], float]
Encode = Callable[[Replica, Batch, Deliver], Awaitable[None]]


class Pool:
    """One pool: its queue, its replicas, its batches in flight. `dispatcher` tells what it can take.

    One that `may_be_empty` counts as ready without replicas if it holds requests.

    No task waits for work: `dispatch` runs whenever something may be dispatched, which is when items were
    admitted or dropped, when a lane is free, and when a replica comes up. `encode` is `call.encode`.
    """

    def __init__(self, dispatcher: Dispatcher, encode: Encode, clock: Clock) -> None:
        self.name = dispatcher.name
        self.queue = dispatcher.queue
        self.dispatcher = dispatcher
        self.requested_tokens = 0.0
        self.may_be_empty = False
        self._encode = encode
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def replicas(self) -> Replicas:
        return self.dispatcher.replicas

    @property
    def in_flight(self) -> int:
        """Number of batches in flight."""
        return len(self.dispatcher.in_flight)

    def is_ready(self) -> bool:
        """Whether it takes work, or may be empty and holds work until a replica is up."""
        return (self.may_be_empty and self.dispatcher.holds) or self.replicas.usable(self._clock())

    def requested(self, tokens: float) -> None:
        """Count `tokens`, estimated, that clients ask for, admitted or not."""
        self.requested_tokens += tokens
        self.dispatcher.observer.requested(tokens)

    def admit(self, items: Sequence[Item]) -> None:
        """Add `items` to the queue; they are dispatched in the next turn of the event loop.

        Requests come in waves, since the replies of a batch are sent together. If the first of a wave were
        dispatched at once, it would take a lane alone, and the others would wait until it is done.
        """
        self.dispatcher.admit(items, self._clock())
        self._dispatch_soon()

    def dispatch(self) -> None:
        """Start batches while there is work, and a replica with a free lane."""
        if self._closed:
            return
        now = self._clock()
        self.dispatcher.expire(now)
        while (found := self.dispatcher.next(now)) is not None:
            self._start(*found)
            now = self._clock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # uvloop counts in whole milliseconds, so its timers may be early; then the timer is set again.
        moment = self.dispatcher.wake_at(now)
        if moment < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, moment - now), self.dispatch)

    def forget(self, items: Sequence[Item]) -> None:
        self.dispatcher.forget(items, self._clock())
        if self.queue.items:
            # Items behind them may have waited only because of them.
            self._dispatch_soon()

    def replicas_changed(self) -> None:
        self.dispatcher.replicas_changed(self._clock())
        self.dispatch()

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        self.dispatcher.set_replicas(replicas, self._clock())
        self.dispatch()

    async def close(self) -> None:
        """Cancel the batches in flight, and start no more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dispatch_soon(self) -> None:
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._soon = None
        self.dispatch()

    def _start(self, replica: Replica, batch: Batch) -> None:
        task = asyncio.get_running_loop().create_task(self._run(replica, batch))
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._ended(replica, batch))
        # The engine finishes the step in progress. If it dies in that step, the batch must still be known.
        batch.abort = partial(asyncio.get_running_loop().call_later, ABORT_SECONDS, task.cancel)
        self._tasks.add(task)

    def _ended(self, replica: Replica, batch: Batch) -> None:
        self.dispatcher.ended(replica, batch, self._clock())
        self.dispatch()

    async def _run(self, replica: Replica, batch: Batch) -> None:
        """One batch on one replica. Each of its items ends, or returns to the queue."""
        dispatcher = self.dispatcher
        instance = replica.info.instance if replica.info else ""
        started, tokens = self._clock(), replica.tokens_in_flight

        def deliver(item: Item, frame: contract.Frame) -> None:
            dispatcher.deliver(batch, item, frame, self._clock())
            if item.state is ItemState.WAITING:
                self._dispatch_soon()

        try:
            with self.dispatcher.observer.at(replica, batch):
                await self._encode(replica, batch, deliver)
            dispatcher.answered(replica, batch, tokens, started, self._clock())
        except ReplicaFailed as error:
            dispatcher.replica_failed(replica, error, started, self._clock())
            dead = error.perhaps_dead and await replica.has_died(instance)
            dispatcher.put_back_failed(batch, error, instance if dead else None, self._clock())
            # While the lane is still taken, so that the retry goes to another replica if one is free.
            self.dispatch()
        except Declined as error:
            dispatcher.declined(replica, batch, error, self._clock())
        except Exception:
            log.exception("a batch ended in an unexpected error. This is a bug.")
            dispatcher.fail(batch.unfinished(), Internal("the router failed"), self._clock())
