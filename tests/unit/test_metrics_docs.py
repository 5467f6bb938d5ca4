"""docs/METRICS.md against the metrics that there are."""

import re
from pathlib import Path

from triptych.router.observe.gauges import make_gauges
from triptych.router.observe.metrics import Metrics
from triptych.workers.worker_metrics import WorkerMetrics

PAGE = Path(__file__).parents[2] / "docs" / "METRICS.md"
ROW = re.compile(r"^\| `(triptych_\w+)` \| (\w+) \| (.*?) \|", re.MULTILINE)
NAME = re.compile(r"triptych_(router|worker)_[a-z_]+")
UNITS = ("_seconds", "_items", "_tokens")

Described = dict[str, tuple[str, tuple[str, ...]]]


def documented(process: str) -> Described:
    rows = ROW.findall(PAGE.read_text())
    return {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in rows
        if name.startswith(f"triptych_{process}_")
    }


def registered(registry: object) -> Described:
    return {
        metric.name + ("_total" if metric.type == "counter" else ""): (
            metric.type,
            getattr(collector, "_labelnames", ()),
        )
        for collector in registry._collector_to_names  # type: ignore[attr-defined]
        for metric in getattr(collector, "describe", collector.collect)()
    }


def router_metrics() -> Described:
    registry = Metrics().registry
    make_gauges(registry)
    return registered(registry)


def worker_metrics() -> Described:
    return registered(WorkerMetrics(lambda: 0, lambda: 0)._registry)


def test_metrics_are_documented() -> None:
    assert documented("router") == router_metrics()
    assert documented("worker") == worker_metrics()


def test_names_follow_prometheus_conventions() -> None:
    for name, (kind, _) in (documented("router") | documented("worker")).items():
        assert NAME.fullmatch(name)
        assert (kind == "counter") == name.endswith("_total")
        if kind == "histogram":
            assert name.endswith(UNITS)
