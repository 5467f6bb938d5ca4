"""Reports the work of a pool: metrics, and where they are on, traces and the request ids of log lines."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from triptych.router.items import Batch, Item, Priority
from triptych.router.observe.metrics import Metrics
from triptych.router.observe.tracing import Tracing
from triptych.router.pool.call import Declined
from triptych.router.pool.replica import Replica
from triptych.workers.shared import contract, logs


class PoolObserver:
    def __init__(
        self, metrics: Metrics, pool: contract.PoolName, tracing: Tracing | None, clock: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._pool = pool
        self._tracing = tracing
        self._clock = clock
        # Looking a child up by its labels costs more than counting.
        self._wait = {priority: metrics.wait.labels(pool, priority.label) for priority in Priority}
        self._batch_items = metrics.batch_items.labels(pool)
        self._batch_tokens = metrics.batch_tokens.labels(pool)
        self._requested = metrics.requested_tokens.labels(pool)
        self._items = metrics.items.labels(pool)
        self._tokens = metrics.tokens.labels(pool)
        self._inference = cache(lambda outcome: metrics.inference.labels(pool, outcome))
        self._served_items = self._served_tokens = 0

    def requested(self, tokens: float) -> None:
        """Clients ask for `tokens`, estimated."""
        self._requested.inc(tokens)

    def taken(self, batch: Batch, now: float) -> None:
        wait = self._wait[batch.priority]
        for job in {item.job for item in batch.items}:
            wait.observe(now - job.admitted_at)
        self._batch_items.observe(len(batch.items))
        self._batch_tokens.observe(batch.tokens)
        if self._tracing:
            self._tracing.waited(self._pool, batch, now)

    @contextmanager
    def at(self, replica: Replica, batch: Batch) -> Iterator[None]:
        """Observe `batch` while `replica` has it. Enter it in the batch's own task."""
        ids = logs.some(item.job.request_id for item in batch.items)
        logs.requests.set(ids)
        batch.headers = {contract.REQUESTS_HEADER: ",".join(ids)}
        span = self._tracing.batch(self._pool, replica.address, batch) if self._tracing else None
        started = self._clock()
        outcome, reason = "done", ""
        try:
            yield
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except Exception as error:
            outcome = error.outcome if isinstance(error, Declined) else "failed"
            reason = str(error)
            raise
        finally:
            self._inference(outcome).observe(self._clock() - started)
            self._items.inc(self._served_items)
            self._tokens.inc(self._served_tokens)
            self._served_items = self._served_tokens = 0
            if self._tracing and span:
                self._tracing.batch_ended(span, outcome, reason)

    def served(self, vector: contract.Vector) -> None:
        """An item has its vector. It is counted when its batch ends."""
        self._served_items += 1
        self._served_tokens += vector.tokens

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        if items:
            self._metrics.retries.labels(self._pool, reason).inc(len(items))
        if self._tracing:
            self._tracing.put_back(items, reason)
