"""The router's Prometheus metrics that are counted as things happen: changes when one comes or goes.

What can be read off the fleet at any time is not counted but read when asked: `router/observe/gauges.py`.
docs/METRICS.md lists both.
"""

import os
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from router.items import Batch, Item
from workers.shared import contract

# Set by whoever starts several routers on one port, to a folder that is theirs alone; it has to be there
# before prometheus_client is imported, which then counts in files in that folder.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUICK_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """All metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._counted = CollectorRegistry()
        self._requests = Histogram(
            "triptych_router_request_duration_seconds",
            "Time from a request's arrival to its reply; _count is the number of requests.",
            ("route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self._rejections = Counter(
            "triptych_router_rejections_total",
            "Requests that ended in an error, by its code; CLIENT_GONE where nobody was left to read one.",
            ("reason",),
            registry=registry,
        )
        self._encode = Histogram(
            "triptych_router_encode_duration_seconds",
            "Time to make a reply's bytes of its vectors.",
            ("form",),
            buckets=QUICK_SECONDS,
            registry=registry,
        )
        self._media = Histogram(
            "triptych_router_media_duration_seconds",
            "Time to fetch one image or PDF, waiting for a place included, or to render one PDF.",
            ("step", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "triptych_router_queue_wait_seconds",
            "Time from a request's admission until a batch takes items of it, once for each such batch.",
            ("pool", "class"),
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_items = Histogram(
            "triptych_router_batch_items",
            "Items of a batch that a replica was given.",
            ("pool",),
            buckets=ITEMS,
            registry=registry,
        )
        self._batch_tokens = Histogram(
            "triptych_router_batch_tokens",
            "Tokens, estimated, of a batch that a replica was given.",
            ("pool",),
            buckets=TOKENS,
            registry=registry,
        )
        self._inference = Histogram(
            "triptych_router_inference_duration_seconds",
            "Time that a batch spent at a replica, by how it ended there.",
            ("pool", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._came = Counter(
            "triptych_router_requested_tokens_total",
            "Tokens, estimated, that a pool was asked for, whether they were accepted or not.",
            ("pool",),
            registry=registry,
        )
        self._items = Counter(
            "triptych_router_items_total", "Items that a replica has served.", ("pool",), registry=registry
        )
        self._tokens = Counter(
            "triptych_router_tokens_total",
            "Tokens, counted by the engine, of the items that a replica has served.",
            ("pool",),
            registry=registry,
        )
        self._retries = Counter(
            "triptych_router_retries_total",
            "Items that went back to the queue after a replica had taken them.",
            ("pool", "reason"),
            registry=registry,
        )
        # Looking a child up by its labels costs more than counting.
        self._by_answer: dict[tuple[str, int], Histogram] = {}
        self._by_form: dict[str, Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request has its reply."""
        try:
            child = self._by_answer[route, status]
        except KeyError:
            child = self._by_answer[route, status] = self._requests.labels(route, str(status))
        child.observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request ends in an error."""
        self._rejections.labels(reason).inc()

    def encoded(self, form: str, seconds: float) -> None:
        """A reply's body was made."""
        try:
            child = self._by_form[form]
        except KeyError:
            child = self._by_form[form] = self._encode.labels(form)
        child.observe(seconds)

    def loaded(self, step: str, outcome: str, seconds: float) -> None:
        """Media was fetched or rendered, or was not."""
        self._media.labels(step, outcome).observe(seconds)

    def pool(self, name: contract.PoolName) -> "PoolMetrics":
        """The part of one pool."""
        return PoolMetrics(
            name,
            self._wait,
            self._batch_items,
            self._batch_tokens,
            self._inference,
            self._came,
            self._items,
            self._tokens,
            self._retries,
        )

    def render(self, gauges: Collector) -> bytes:
        """The page for Prometheus, with `gauges`; of all routers that share a folder. For a thread."""
        page = CollectorRegistry()
        if folder := os.environ.get(SHARED_FOLDER):
            MultiProcessCollector(page, folder)  # type: ignore[no-untyped-call]
        else:
            page.register(self._counted)
        page.register(gauges)
        return generate_latest(page)


class PoolMetrics:
    """The metrics of one pool."""

    def __init__(
        self,
        name: contract.PoolName,
        wait: Histogram,
        batch_items: Histogram,
        batch_tokens: Histogram,
        inference: Histogram,
        came: Counter,
        items: Counter,
        tokens: Counter,
        retries: Counter,
    ) -> None:
        self._name = name
        self._wait = {bulk: wait.labels(name, class_of(bulk=bulk)) for bulk in (False, True)}
        self._batch_items = batch_items.labels(name)
        self._batch_tokens = batch_tokens.labels(name)
        self._inference = inference
        self._came = came.labels(name)
        self._items = items.labels(name)
        self._tokens = tokens.labels(name)
        self._retries = retries
        self._by_outcome: dict[str, Histogram] = {}
        self._served_items = 0
        self._served_tokens = 0

    def came(self, tokens: float) -> None:
        """The pool is asked for so many tokens."""
        self._came.inc(tokens)

    def taken(self, batch: Batch, now: float) -> None:
        """A replica was given `batch`."""
        wait = self._wait[batch.bulk]
        last = None
        for item in batch.items:
            # A request's items stand together.
            if item.gather is not last:
                last = item.gather
                wait.observe(now - last.admitted_at)
        self._batch_items.observe(len(batch.items))
        self._batch_tokens.observe(batch.tokens)

    def served(self, vector: contract.Vector) -> None:
        """An item has its vector; added up here and counted when the batch ends."""
        self._served_items += 1
        self._served_tokens += vector.tokens

    def ended(self, outcome: str, seconds: float) -> None:
        """A batch has ended at its replica."""
        try:
            child = self._by_outcome[outcome]
        except KeyError:
            child = self._by_outcome[outcome] = self._inference.labels(self._name, outcome)
        child.observe(seconds)
        self._items.inc(self._served_items)
        self._tokens.inc(self._served_tokens)
        self._served_items = self._served_tokens = 0

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """`items` wait again."""
        if items:
            self._retries.labels(self._name, reason).inc(len(items))


def class_of(*, bulk: bool) -> str:
    """A class by its name."""
    return "bulk" if bulk else "interactive"
