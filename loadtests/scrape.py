"""Time series of the server's own metrics, from pages in Prometheus' text format."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from triptych.loadtests.results import Series

MOST_POINTS = 600

Labels = tuple[tuple[str, str], ...]
Page = dict[str, dict[Labels, float]]
"""Values by sample name and labels."""


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
_WANTED = tuple({sample for drawn in DRAWN for sample in drawn.samples})


def parse(text: str) -> Page:
    """The samples that `DRAWN` needs. NaN is left out; a page that cannot be read is empty."""
    page: Page = {}
    # Only the wanted lines: pages come every second for hours.
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_WANTED))
    try:
        for family in text_string_to_metric_families(lines + "\n"):
            for sample in family.samples:
                if sample.name in _WANTED and math.isfinite(sample.value):
                    labels = tuple(sorted(sample.labels.items()))
                    page.setdefault(sample.name, {})[labels] = sample.value
    except ValueError:
        return {}
    return page


class Scraper:
    """Collects the pages of several sources. The keys of `sources` name them in the series."""

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._pages: dict[str, list[tuple[float, Page]]] = {source: [] for source in sources}

    def add(self, at: float, text: str, source: str) -> None:
        """Add a page read `at` seconds after the start of the run."""
        self._pages[source].append((at, parse(text)))

    def series(self) -> list[Series]:
        """Series of all that was not always 0, and of queues."""
        found = []
        for source, pages in self._pages.items():
            suffix = source if len(self._pages) > 1 else ""
            for drawn in DRAWN:
                found += [
                    _thinned(one)
                    for one in _drawn(suffix, pages, drawn)
                    if any(one.values) or (drawn.panel == "queue" and one.values)
                ]
        return found


def discover(document: Any) -> dict[str, str]:
    """Metrics addresses of the workers, by a name for each, from a router's `/targets` (Prometheus'
    http_sd)."""
    return {
        f"worker {group['labels']['task']} {target}": f"http://{target}/metrics"
        for group in document
        for target in group["targets"]
    }


def _drawn(suffix: str, pages: Sequence[tuple[float, Page]], drawn: Drawn) -> list[Series]:
    found: dict[str, Series] = {}
    before: tuple[float, dict[str, list[float]]] | None = None
    for at, page in pages:
        now = _grouped(page, drawn)
        shown: Iterator[tuple[str, float]] = iter(())
        if drawn.kind == "now":
            shown = ((label, value) for label, [value] in now.items())
        elif before is not None and at > before[0]:
            shown = _growth(drawn, before[1], now, at - before[0])
        before = at, now
        for label, value in shown:
            name = ", ".join(part for part in (drawn.name, label, suffix) if part)
            one = found.setdefault(
                label, Series(panel=drawn.panel, name=name, unit=drawn.unit, at=[], values=[])
            )
            one.at.append(at)
            one.values.append(value / drawn.scale)
    return list(found.values())


def _grouped(page: Page, drawn: Drawn) -> dict[str, list[float]]:
    """The sum of each of the metric's samples, by the labels that tell series apart."""
    grouped: dict[str, list[float]] = {}
    for place, name in enumerate(drawn.samples):
        for labels, value in page.get(name, {}).items():
            label = ", ".join(text for wanted in drawn.by for key, text in labels if key == wanted)
            grouped.setdefault(label, [0.0] * len(drawn.samples))[place] += value
    return grouped


def _growth(
    drawn: Drawn, before: Mapping[str, list[float]], now: Mapping[str, list[float]], seconds: float
) -> Iterator[tuple[str, float]]:
    for label, values in now.items():
        old = before.get(label, [0.0] * len(values))
        # The server has restarted and counts from 0.
        if any(value < was for value, was in zip(values, old, strict=True)):
            old = [0.0] * len(values)
        grown = [value - was for value, was in zip(values, old, strict=True)]
        if drawn.kind == "rate":
            yield label, grown[0] / seconds
        elif grown[1]:
            yield label, grown[0] / grown[1]


def _thinned(one: Series) -> Series:
    """At most `MOST_POINTS` points, each the mean of its neighbours."""
    step = math.ceil(len(one.at) / MOST_POINTS)
    one.at, one.values = (
        [sum(part) / len(part) for part in (column[at : at + step] for at in range(0, len(column), step))]
        for column in (one.at, one.values)
    )
    return one
