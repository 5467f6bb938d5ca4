"""The router's counters and histograms; its gauges are in `gauges.py`. docs/METRICS.md lists both."""

from collections.abc import Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

# Turns on prometheus-client's multi-process mode: a folder that all routers on one port share. It must be set
# before prometheus_client is imported.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUICK_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Each takes two series in each router process. Further API keys share the label "other".
MOST_KEYS = 1000
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """All metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._histogram(
            "request_duration_seconds",
            "Time from a request's arrival to its reply; _count is the number of requests.",
            ("route", "status"),
            SECONDS,
        )
        self.of_keys = Summary(
            "triptych_router_key_request_duration_seconds",
            "Time from the arrival of an API key's request to its reply; _count is the number of requests.",
            ("key",),
            registry=self.registry,
        )
        self.rejections = self._counter(
            "rejections_total",
            "Requests that ended in an error, by its code; CLIENT_GONE if the client left.",
            ("reason",),
        )
        self.closed_connections = self._counter(
            "closed_connections_total",
            "Connections that the router closed: too_many, too_many_of_client, too_slow.",
            ("reason",),
        )
        self.encode = self._histogram(
            "encode_duration_seconds", "Time to encode a reply.", ("form",), QUICK_SECONDS
        )
        self.media = self._histogram(
            "media_duration_seconds",
            "Time to fetch one image or PDF, with its wait for a slot, or to render one PDF.",
            ("step", "outcome"),
            SECONDS,
        )
        self.wait = self._histogram(
            "queue_wait_seconds",
            "Time from a request's admission until a batch takes items of it, once for each such batch.",
            ("pool", "class"),
            SECONDS,
        )
        self.batch_items = self._histogram(
            "batch_items", "Items of a batch that a replica was given.", ("pool",), ITEMS
        )
        self.batch_tokens = self._histogram(
            "batch_tokens", "Tokens, estimated, of a batch that a replica was given.", ("pool",), TOKENS
        )
        self.inference = self._histogram(
            "inference_duration_seconds",
            "Time of a batch at a replica, by its outcome.",
            ("pool", "outcome"),
            SECONDS,
        )
        self.requested_tokens = self._counter(
            "requested_tokens_total", "Tokens, estimated, of all requests, accepted or not.", ("pool",)
        )
        self.items = self._counter("items_total", "Items served.", ("pool",))
        self.tokens = self._counter(
            "tokens_total", "Tokens, counted by the engine, of the items served.", ("pool",)
        )
        self.retries = self._counter(
            "retries_total",
            "Items that went back to the queue after a replica had taken them.",
            ("pool", "reason"),
        )
        # Looking a child up by its labels costs more than counting.
        self._answered = cache(lambda route, status: self.requests.labels(route, str(status)))
        self.encoded = cache(self.encode.labels)
        self._by_key: dict[str, Summary] = {}

    def _histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        return Histogram(f"triptych_router_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"triptych_router_{name}", text, labels, registry=self.registry)

    def answered(self, route: str, status: int, seconds: float, key: str = "") -> None:
        """A request was answered. `key` is the name of its API key, if it has one."""
        self._answered(route, status).observe(seconds)
        if key:
            self._of_key(key).observe(seconds)

    def _of_key(self, key: str) -> Summary:
        try:
            return self._by_key[key]
        except KeyError:
            label = key if len(self._by_key) < MOST_KEYS else "other"
            child = self._by_key[label] = self.of_keys.labels(label)
            return child
