"""A server's own metrics over the time of a run, from Prometheus' text format (pure)."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from loadtests.results import Series

MOST_POINTS = 600

Labels = tuple[tuple[str, str], ...]
Page = dict[str, dict[Labels, float]]
"""Values by labels by name of the sample."""

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Drawn(NamedTuple):
    """A series to be made: of what, shown how, and told apart by which labels.

    `kind`: `now` is a gauge as it stands, `rate` a counter's growth a second, `mean` a histogram's mean over
    the last interval. `unit` is `scale` times the metric's own.
    """

    panel: str
    name: str
    unit: str
    kind: str
    metric: str
    by: tuple[str, ...] = ()
    scale: float = 1


MIB = 1 << 20
DRAWN = (
    Drawn("queue", "waiting", "items", "now", "triptych_router_queue_items", ("pool", "class")),
    Drawn("queue", "waiting", "items", "now", "triptych_worker_waiting_items"),
    Drawn("queue", "waiting", "requests", "now", "vllm:num_requests_waiting"),
    Drawn("wait", "queue wait", "s", "mean", "triptych_router_queue_wait_seconds", ("class",)),
    Drawn("batch", "items a batch", "items", "mean", "triptych_router_batch_items", ("pool",)),
    Drawn(
        "engine", "batch at its worker", "s", "mean", "triptych_router_inference_duration_seconds", ("pool",)
    ),
    Drawn("engine", "item in the engine", "s", "mean", "triptych_worker_engine_duration_seconds"),
    Drawn("in flight", "batches", "batches", "now", "triptych_router_replica_batches_in_flight", ("pool",)),
    Drawn("in flight", "running", "requests", "now", "vllm:num_requests_running"),
    Drawn("cache", "key-value cache in use", "share", "now", "vllm:kv_cache_usage_perc"),
    Drawn("served", "tokens", "tokens/s", "rate", "triptych_router_tokens_total", ("pool",)),
    Drawn("served", "tokens", "tokens/s", "rate", "vllm:prompt_tokens_total"),
    Drawn("refused", "refused", "requests/s", "rate", "triptych_router_rejections_total", ("reason",)),
    Drawn("refused", "tried again", "items/s", "rate", "triptych_router_retries_total", ("reason",)),
    Drawn("memory", "resident", "MiB", "now", "triptych_router_resident_memory_bytes", scale=MIB),
    Drawn("memory", "resident", "MiB", "now", "triptych_worker_resident_memory_bytes", scale=MIB),
)
_WANTED = tuple(
    {
        f"{drawn.metric}{part}"
        for drawn in DRAWN
        for part in (("_sum", "_count") if drawn.kind == "mean" else ("",))
    }
)


def parse(text: str) -> Page:
    """The samples that are drawn, and no others; NaN, and what cannot be read, is left out."""
    page: Page = {}
    for line in text.splitlines():
        if not line.startswith(_WANTED) or not (match := _LINE.match(line)):
            continue
        name, labels, value = match.groups()
        with contextlib.suppress(ValueError):
            if name in _WANTED and math.isfinite(number := float(value)):
                page.setdefault(name, {})[_labels(labels or "")] = number
    return page


@cache
def _labels(text: str) -> Labels:
    """Kept, since pages come every second for hours and have the same ones."""
    return tuple(sorted(_LABEL.findall(text)))


class Scraper:
    """Pages as they come in, by what they are of. `sources` names these, for the series."""

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._several = len(sources) > 1
        self._pages: dict[str, list[tuple[float, Page]]] = {source: [] for source in sources}

    def add(self, at: float, text: str, source: str) -> None:
        """A page, read `at` seconds since the run began."""
        self._pages[source].append((at, parse(text)))

    def series(self) -> list[Series]:
        """What is drawn; all that was nothing throughout is left out, but for queues."""
        found = []
        for source, pages in self._pages.items():
            for drawn in DRAWN:
                found += [
                    _thinned(one)
                    for one in self._drawn(source, pages, drawn)
                    if any(one.values) or (drawn.panel == "queue" and one.values)
                ]
        return found

    def _drawn(self, source: str, pages: Sequence[tuple[float, Page]], drawn: Drawn) -> Iterator[Series]:
        values: dict[str, Series] = {}
        before: tuple[float, dict[str, tuple[float, float]]] | None = None
        for at, page in pages:
            now = _grouped(page, drawn)
            shown = {}
            if drawn.kind == "now":
                shown = {label: value for label, (value, _) in now.items()}
            elif before is not None and at > before[0]:
                shown = dict(_growth(drawn, before[1], now, at - before[0]))
            before = at, now
            for label, value in shown.items():
                name = ", ".join(
                    part for part in (drawn.name, label, source if self._several else "") if part
                )
                one = values.setdefault(
                    label, Series(panel=drawn.panel, name=name, unit=drawn.unit, at=[], values=[])
                )
                one.at.append(at)
                one.values.append(value / drawn.scale)
        yield from values.values()


def discover(document: Any) -> dict[str, str]:
    """The workers' pages, by pool and address, from a router's `/targets` (Prometheus' http_sd)."""
    return {
        f"worker {group['labels']['task']} {target}": f"http://{target}/metrics"
        for group in document
        for target in group["targets"]
    }


def _grouped(page: Page, drawn: Drawn) -> dict[str, tuple[float, float]]:
    """By the labels that tell series apart: the value, or a histogram's sum and count."""
    sums = page.get(f"{drawn.metric}_sum" if drawn.kind == "mean" else drawn.metric, {})
    counts = page.get(f"{drawn.metric}_count", {}) if drawn.kind == "mean" else {}
    grouped: dict[str, tuple[float, float]] = {}
    for labels, value in sums.items():
        named = dict(labels)
        label = ", ".join(named[name] for name in drawn.by if name in named)
        sum_, count = grouped.get(label, (0.0, 0.0))
        grouped[label] = sum_ + value, count + counts.get(labels, 0.0)
    return grouped


def _growth(
    drawn: Drawn,
    before: Mapping[str, tuple[float, float]],
    now: Mapping[str, tuple[float, float]],
    seconds: float,
) -> Iterator[tuple[str, float]]:
    for label, (sum_, count) in now.items():
        old_sum, old_count = before.get(label, (0.0, 0.0))
        # Started again: what it has counted since is all there is.
        if sum_ < old_sum or count < old_count:
            old_sum = old_count = 0.0
        if drawn.kind == "rate":
            yield label, (sum_ - old_sum) / seconds
        elif count > old_count:
            yield label, (sum_ - old_sum) / (count - old_count)


def _thinned(one: Series) -> Series:
    """At most `MOST_POINTS`, each the mean of its neighbours."""
    step = -(-len(one.at) // MOST_POINTS)
    return Series(
        panel=one.panel,
        name=one.name,
        unit=one.unit,
        at=_means(one.at, step),
        values=_means(one.values, step),
    )


def _means(values: list[float], step: int) -> list[float]:
    parts = (values[start : start + step] for start in range(0, len(values), step))
    return [sum(part) / len(part) for part in parts]
