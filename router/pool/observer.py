"""What a pool shows of its work as it happens: metrics always, spans and the names of requests in logs."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from router.items import Batch, Item
from router.observe.metrics import PoolMetrics
from router.observe.tracing import Tracing
from router.pool.replica import Draining, Overloaded, Rejected, Replica
from workers.shared import contract, logs

# How a batch ended at its replica, by what ended it; anything else: failed.
OUTCOMES: dict[type[BaseException], str] = {
    Overloaded: "overloaded",
    Draining: "draining",
    Rejected: "rejected",
    asyncio.CancelledError: "abandoned",
}


class PoolObserver:
    """Is told by one pool."""

    def __init__(self, metrics: PoolMetrics, tracing: Tracing | None, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock

    def came(self, tokens: float) -> None:
        """The pool is asked for so many tokens."""
        self._metrics.came(tokens)

    def taken(self, batch: Batch, now: float) -> None:
        """A lane has taken `batch`."""
        self._metrics.taken(batch, now)
        if self._tracing:
            self._tracing.waited(batch, now)

    @contextmanager
    def at(self, replica: Replica, batch: Batch) -> Iterator[None]:
        """While `replica` has `batch`; to be entered in the batch's own task."""
        ids = logs.some(item.gather.request_id for item in batch.items)
        logs.requests.set(ids)
        batch.headers = {contract.REQUESTS_HEADER: ",".join(ids)}
        span = self._tracing.batch(replica.address, batch) if self._tracing else None
        started = self._clock()
        outcome, reason = "done", ""
        try:
            yield
        except BaseException as error:
            outcome, reason = OUTCOMES.get(type(error), "failed"), str(error)
            raise
        finally:
            self._metrics.ended(outcome, self._clock() - started)
            if self._tracing and span:
                self._tracing.batch_ended(span, outcome, reason)

    def served(self, vector: contract.Vector) -> None:
        """An item has its vector."""
        self._metrics.served(vector)

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """`items` wait again, for another replica or another try."""
        self._metrics.put_back(items, reason)
        if self._tracing:
            self._tracing.put_back(items, reason)
