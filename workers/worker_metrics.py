"""Prometheus metrics of a worker, listed in docs/METRICS.md."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from triptych.workers.shared.contract import Frame, Vector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class WorkerMetrics:
    """All metrics of one worker. `waiting` returns its accepted items, `steps` its engine's steps."""

    def __init__(self, waiting: Callable[[], int], steps: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(_Steps(steps))
        gauge, counter = partial(Gauge, registry=registry), partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        gauge("triptych_worker_waiting_items", "Accepted items that have no frame yet.").set_function(waiting)
        gauge(
            "triptych_worker_resident_memory_bytes",
            "Memory of the worker and its engine process; shared memory counts for each.",
        ).set_function(_resident_bytes)
        self._items = counter("triptych_worker_items_total", "Items by outcome.", ("outcome",))
        self._vectors = self._items.labels("vector")
        self._tokens = counter("triptych_worker_tokens_total", "Tokens of encoded items, prefixes included.")
        self.refused = counter(
            "triptych_worker_refused_batches_total", "Batches that were refused.", ("reason",)
        )
        self.batch_items = histogram(
            "triptych_worker_batch_items", "Items of an accepted batch.", buckets=ITEMS
        )
        self._batch_tokens = histogram(
            "triptych_worker_batch_tokens", "Tokens of the encoded items of a finished batch.", buckets=TOKENS
        )
        self.prepare = histogram(
            "triptych_worker_prepare_duration_seconds", "Time to tokenize a batch.", buckets=SECONDS
        )
        self.engine = histogram(
            "triptych_worker_engine_duration_seconds",
            "Time of an item in the engine, including its wait there and the decoding of an image.",
            buckets=SECONDS,
        )
        self.canary_drift = gauge(
            "triptych_worker_canary_drift",
            "Distance of a canary's last vector from its first, relative to its norm.",
            ("canary",),
        )
        self.canary_failures = counter(
            "triptych_worker_canary_failures",
            "Canaries that failed or drifted; the first takes the worker out of service.",
        )

    def ended(self, frame: Frame) -> int:
        """Count an item that has its frame; returns its tokens."""
        if not isinstance(frame, Vector):
            self._items.labels(frame.code).inc()
            return 0
        self._vectors.inc()
        self._tokens.inc(frame.tokens)
        return frame.tokens

    def batch_ended(self, tokens: int, unfinished: int) -> None:
        """Count a batch that ended. `unfinished` items got no frame: the caller left or the engine died."""
        self._batch_tokens.observe(tokens)
        if unfinished:
            self._items.labels("abandoned").inc(unfinished)

    def render(self) -> bytes:
        """The metrics page: our metrics and vLLM's. May run in a thread."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)


class _Steps(Collector):
    """A counter whose value the engine process keeps."""

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps = steps

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("triptych_worker_engine_steps", "Engine steps.", value=self._steps())


def _resident_bytes() -> int:
    process = psutil.Process()
    total = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total
