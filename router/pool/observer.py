"""Reports the work of a pool: metrics, and where they are on, traces and the request ids of log lines."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from triptych.router.items import Batch, Item
from triptych.router.observe.metrics import PoolMetrics
from triptych.router.observe.tracing import Tracing
from triptych.router.pool.call import CallFailed
from triptych.router.pool.replica import Replica
from triptych.workers.shared import contract, logs


class PoolObserver:
    """The observer of one pool."""

    def __init__(self, metrics: PoolMetrics, tracing: Tracing | None, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock

    def requested(self, tokens: float) -> None:
        """Clients ask for `tokens`, estimated."""
        self._metrics.requested(tokens)

    def taken(self, batch: Batch, now: float) -> None:
        """`batch` has left the queue."""
        self._metrics.taken(batch, now)
        if self._tracing:
            self._tracing.waited(self._metrics.name, batch, now)

    @contextmanager
    def at(self, replica: Replica, batch: Batch) -> Iterator[None]:
        """The time that `replica` has `batch`. Enter it in the batch's own task."""
        ids = logs.some(item.job.request_id for item in batch.items)
        logs.requests.set(ids)
        batch.headers = {contract.REQUESTS_HEADER: ",".join(ids)}
        span = self._tracing.batch(self._metrics.name, replica.address, batch) if self._tracing else None
        started = self._clock()
        outcome, reason = "done", ""
        try:
            yield
        except CallFailed as error:
            outcome, reason = error.outcome, str(error)
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except Exception as error:
            outcome, reason = "failed", str(error)
            raise
        finally:
            self._metrics.ended(outcome, self._clock() - started)
            if self._tracing and span:
                self._tracing.batch_ended(span, outcome, reason)

    def served(self, vector: contract.Vector) -> None:
        """An item has its vector."""
        self._metrics.served(vector)

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """`items` return to the queue."""
        self._metrics.put_back(items, reason)
        if self._tracing:
            self._tracing.put_back(items, reason)
