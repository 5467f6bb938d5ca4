"""A worker's Prometheus metrics: changes when one comes or goes. docs/METRICS.md lists them."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from workers.shared.contract import Frame, Vector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class WorkerMetrics:
    """All metrics of one worker; `waiting` and `steps` are asked for its items and its engine's steps."""

    def __init__(self, waiting: Callable[[], int], steps: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(_Steps(steps))
        Gauge(
            "triptych_worker_waiting_items",
            "Items that were accepted and have no frame yet.",
            registry=registry,
        ).set_function(waiting)
        Gauge(
            "triptych_worker_resident_memory_bytes",
            "Memory of the worker and of its engine's process; what they share counts for each.",
            registry=registry,
        ).set_function(_resident_bytes)
        self._items = Counter(
            "triptych_worker_items_total", "Items by how they ended.", ("outcome",), registry=registry
        )
        self._vectors = self._items.labels("vector")
        self._tokens = Counter(
            "triptych_worker_tokens_total",
            "Tokens of the items that ended in a vector, prefixes included.",
            registry=registry,
        )
        self._refused = Counter(
            "triptych_worker_refused_batches_total",
            "Batches that were not accepted.",
            ("reason",),
            registry=registry,
        )
        self._batch_items = Histogram(
            "triptych_worker_batch_items", "Items of an accepted batch.", buckets=ITEMS, registry=registry
        )
        self._batch_tokens = Histogram(
            "triptych_worker_batch_tokens",
            "Tokens of the vectors of a batch, counted when it has ended.",
            buckets=TOKENS,
            registry=registry,
        )
        self.prepare = Histogram(
            "triptych_worker_prepare_duration_seconds",
            "Time to tokenise a batch.",
            buckets=SECONDS,
            registry=registry,
        )
        self.engine = Histogram(
            "triptych_worker_engine_duration_seconds",
            "Time that an item spent in the engine, its wait there and an image's decoding included.",
            buckets=SECONDS,
            registry=registry,
        )

        self.canary_drift = Gauge(
            "triptych_worker_canary_drift",
            "Distance of a canary's last vector from its first, relative to its length.",
            ("canary",),
            registry=registry,
        )
        self.canary_failures = Counter(
            "triptych_worker_canary_failures",
            "Canaries that failed or drifted beyond rounding; the first takes the worker out of service.",
            registry=registry,
        )

    def accepted(self, items: int) -> None:
        """A batch is begun."""
        self._batch_items.observe(items)

    def refused(self, reason: str) -> None:
        """A batch is not taken."""
        self._refused.labels(reason).inc()

    def ended(self, frame: Frame) -> int:
        """An item has its frame; returns its tokens."""
        if not isinstance(frame, Vector):
            self._items.labels(frame.code).inc()
            return 0
        self._vectors.inc()
        self._tokens.inc(frame.tokens)
        return frame.tokens

    def batch_ended(self, tokens: int, unfinished: int) -> None:
        """A batch has ended, `unfinished` of its items without a frame: nobody waits, or the engine died."""
        self._batch_tokens.observe(tokens)
        if unfinished:
            self._items.labels("abandoned").inc(unfinished)

    def render(self) -> bytes:
        """The page for Prometheus: ours, and the engine's own where it counts. May be run in a thread."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)


class _Steps(Collector):
    """The engine's steps, which it counts itself."""

    _labelnames = ()

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps = steps

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield from self.collect()

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "triptych_worker_engine_steps", "Steps that the engine has made.", value=self._steps()
        )


def _resident_bytes() -> int:
    """Of this process and of those below it."""
    process = psutil.Process()
    found = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return found
