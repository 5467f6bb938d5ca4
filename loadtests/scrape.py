"""Time series of the server's own metrics, from pages in Prometheus' text format."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from triptych.loadtests.results import Series

MOST_POINTS = 600
SCRAPE_SECONDS = 1.0

Pages = Mapping[str, tuple[str, str | None]]
"""Metrics pages by name: the address and the bearer token."""


class Drawn(NamedTuple):
    """A metric that becomes series, one for each combination of the labels `by`.

    `kind`: `now` takes a gauge's value, `rate` a counter's growth per second, `mean` a histogram's mean since
    the last page. Values are divided by `scale`.
    """

    panel: str
    name: str
    unit: str
    kind: str
    metric: str
    by: tuple[str, ...] = ()
    scale: float = 1

    @property
    def samples(self) -> tuple[str, ...]:
        return (f"{self.metric}_sum", f"{self.metric}_count") if self.kind == "mean" else (self.metric,)


MIB = 1 << 20
DRAWN = (
    Drawn("queue", "waiting", "items", "now", "triptych_router_queue_items", ("pool", "class")),
    Drawn("queue", "waiting", "items", "now", "triptych_worker_waiting_items"),
    Drawn("queue", "waiting", "requests", "now", "vllm:num_requests_waiting"),
    Drawn("wait", "queue wait", "s", "mean", "triptych_router_queue_wait_seconds", ("class",)),
    Drawn("batch", "items per batch", "items", "mean", "triptych_router_batch_items", ("pool",)),
    Drawn(
        "engine", "batch in a worker", "s", "mean", "triptych_router_inference_duration_seconds", ("pool",)
    ),
    Drawn("engine", "item in the engine", "s", "mean", "triptych_worker_engine_duration_seconds"),
    Drawn("in flight", "batches", "batches", "now", "triptych_router_replica_batches_in_flight", ("pool",)),
    Drawn("in flight", "running", "requests", "now", "vllm:num_requests_running"),
    Drawn("cache", "key-value cache in use", "share", "now", "vllm:kv_cache_usage_perc"),
    Drawn("served", "tokens", "tokens/s", "rate", "triptych_router_tokens_total", ("pool",)),
    Drawn("served", "tokens", "tokens/s", "rate", "vllm:prompt_tokens_total"),
    Drawn("refused", "refused", "requests/s", "rate", "triptych_router_rejections_total", ("reason",)),
    Drawn("refused", "retried", "items/s", "rate", "triptych_router_retries_total", ("reason",)),
    Drawn("memory", "resident", "MiB", "now", "triptych_router_resident_memory_bytes", scale=MIB),
    Drawn("memory", "resident", "MiB", "now", "triptych_worker_resident_memory_bytes", scale=MIB),
)
_WANTED = {sample: drawn for drawn in DRAWN for sample in drawn.samples}


class Scraper:
    """Reads `pages` about every second, and collects the metrics of `DRAWN`."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        # Rows of the time and the values of a metric's samples, by page and labels.
        self._seen: dict[tuple[str, Drawn, str], list[list[float]]] = {}

    @contextlib.contextmanager
    def reading(self, clock: Callable[[], float], *, verify: bool) -> Iterator[None]:
        """Read in threads. A page that does not answer leaves a gap. `clock`: seconds of the run."""
        ended = threading.Event()

        def read(name: str, url: str, key: str | None) -> None:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            with httpx.Client(timeout=5, verify=verify, trust_env=False, headers=headers) as client:
                while not ended.is_set():
                    with contextlib.suppress(httpx.HTTPError):
                        reply = client.get(url)
                        if reply.status_code == 200:
                            self.add(clock(), reply.text, name)
                    ended.wait(SCRAPE_SECONDS)

        for name, page in self._pages.items():
            threading.Thread(target=read, args=(name, *page), daemon=True).start()
        try:
            yield
        finally:
            # A page that hangs must not hold up the report.
            ended.set()

    def add(self, at: float, text: str, page: str) -> None:
        """Add a page read `at` seconds after the start of the run.

        Samples are summed by the labels that tell series apart. NaN is left out. A page that cannot be read
        is empty.
        """
        # Only the wanted lines: pages come every second for hours.
        lines = "\n".join(line for line in text.splitlines() if line.startswith(tuple(_WANTED)))
        sums: dict[tuple[str, Drawn, str], list[float]] = {}
        with contextlib.suppress(ValueError):
            for family in text_string_to_metric_families(lines + "\n"):
                for sample in family.samples:
                    drawn = _WANTED.get(sample.name)
                    if drawn and math.isfinite(sample.value):
                        label = ", ".join(sample.labels[name] for name in drawn.by if name in sample.labels)
                        row = sums.setdefault((page, drawn, label), [at] + [0.0] * len(drawn.samples))
                        row[1 + drawn.samples.index(sample.name)] += sample.value
        for key, row in sums.items():
            self._seen.setdefault(key, []).append(row)

    def series(self) -> list[Series]:
        """Series of all that was not always 0, and of queues."""
        found, pages = [], list(self._pages)
        for page, drawn, label in sorted(
            self._seen, key=lambda key: (pages.index(key[0]), DRAWN.index(key[1]), key[2])
        ):
            # A copy, since a page that hung may still be added.
            at, values = _points(drawn, np.array(self._seen[page, drawn, label][:]))
            if values.any() or (drawn.panel == "queue" and len(values)):
                name = ", ".join(filter(None, (drawn.name, label, page if len(pages) > 1 else "")))
                columns = {"at": _thinned(at), "values": _thinned(values / drawn.scale)}
                found.append(Series(panel=drawn.panel, name=name, unit=drawn.unit, **columns))
        return found


def _points(drawn: Drawn, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and values of a series."""
    at, values = rows[:, 0], rows[:, 1:]
    if drawn.kind == "now":
        return at, values[:, 0]
    grown = np.diff(values, axis=0)
    # A server that has restarted counts from 0.
    restarted = (grown < 0).any(axis=1)
    grown[restarted] = values[1:][restarted]
    if drawn.kind == "rate":
        return at[1:], grown[:, 0] / np.diff(at)
    new = grown[:, 1] > 0
    return at[1:][new], grown[new, 0] / grown[new, 1]


def _thinned(column: NDArray[np.float64]) -> list[float]:
    """At most `MOST_POINTS` values, each the mean of its neighbours."""
    step = math.ceil(len(column) / MOST_POINTS)
    return [float(column[begin : begin + step].mean()) for begin in range(0, len(column), step or 1)]
