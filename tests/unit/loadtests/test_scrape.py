"""Series from metrics pages, over gaps, restarts and long runs."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from triptych.loadtests.results import Series
from triptych.loadtests.scrape import DRAWN, MOST_POINTS, Scraper

DOCUMENT = Path(__file__).parents[3] / "docs" / "METRICS.md"
WAITING = "vllm:num_requests_waiting"


def series(*pages: str, times: list[float] | None = None) -> dict[str, Series]:
    """The series of pages, by default one per second, by panel."""
    scraper = Scraper({"router": ("", None)})
    for at, page in zip(times or range(len(pages)), pages, strict=True):
        scraper.add(float(at), page, "router")
    return {one.panel: one for one in scraper.series()}


def tokens(*values: float) -> list[str]:
    return [f'triptych_router_tokens_total{{pool="code"}} {value}\n' for value in values]


def waits(*pairs: tuple[float, int]) -> list[str]:
    name, labels = "triptych_router_queue_wait_seconds", '{class="bulk",pool="code"}'
    return [f"{name}_sum{labels} {total}\n{name}_count{labels} {count}\n" for total, count in pairs]


def test_pages_of_the_client_library_are_read() -> None:
    registry = CollectorRegistry()
    queue = Gauge("triptych_router_queue_items", "Waiting.", ["pool", "class"], registry=registry)
    rejected = Counter("triptych_router_rejections", "Refused.", ["reason"], registry=registry)
    sizes = Histogram("triptych_router_batch_items", "Sizes.", ["pool"], registry=registry)
    Gauge("triptych_router_queue_items_too", "Not drawn.", registry=registry).set(2)
    pages = []
    for _ in range(2):
        queue.labels("code", "bulk").set(7)
        rejected.labels("an odd, {braced} one").inc(3)
        sizes.labels("code").observe(5)
        pages.append(generate_latest(registry).decode())
    assert {one.name: one.values for one in series(*pages).values()} == {
        "waiting, code, bulk": [7.0, 7.0],
        "refused, an odd, {braced} one": [3.0],
        "items per batch, code": [5.0],
    }


def test_unreadable_values_leave_a_gap() -> None:
    found = series(f"{WAITING} 2\n", f"{WAITING} NaN\n", f"{WAITING} 1e\n", f"{WAITING} 4\n")
    assert (found["queue"].at, found["queue"].values) == ([0.0, 3.0], [2.0, 4.0])


def test_counter_becomes_a_rate() -> None:
    found = series(*tokens(100, 500, 500), times=[0, 2, 3])["served"]
    assert (found.name, found.unit) == ("tokens, code", "tokens/s")
    assert (found.at, found.values) == ([2.0, 3.0], [200.0, 0.0])


@pytest.mark.parametrize(
    ("pages", "panel", "values"),
    [(tokens(1000, 1100, 40, 90), "served", [100, 40, 50]), (waits((9, 10), (20, 5)), "wait", [4])],
)
def test_restarted_counters_start_at_zero(pages: list[str], panel: str, values: list[float]) -> None:
    assert series(*pages)[panel].values == values


def test_histogram_becomes_the_mean_of_what_is_new() -> None:
    found = series(*waits((100, 50), (101, 60), (101, 60), (105, 70)))["wait"]
    # The third page brought nothing new.
    assert (found.at, found.values) == ([1.0, 3.0], pytest.approx([0.1, 0.4]))


def test_zero_series_are_left_out_except_queues() -> None:
    page = 'triptych_router_retries_total{reason="x"} 0\ntriptych_router_queue_items{pool="code"} 0\n'
    assert list(series(page, page)) == ["queue"]


def test_long_series_are_averaged() -> None:
    count = 2 * MOST_POINTS - 1
    found = series(*(f"{WAITING} {at % 2 * 2}\n" for at in range(count)))["queue"]
    assert len(found.at) == len(found.values) == MOST_POINTS
    assert (found.at[:2], found.values[:2]) == ([0.5, 2.5], [1.0, 1.0])
    assert (found.at[-1], found.values[-1]) == (count - 1.0, 0.0)


def test_drawn_metrics_are_documented() -> None:
    documented = DOCUMENT.read_text().splitlines()
    for drawn in (drawn for drawn in DRAWN if drawn.metric.startswith("triptych_")):
        [line] = [line for line in documented if line.startswith(f"| `{drawn.metric}` |")]
        assert {"now": "gauge", "rate": "counter", "mean": "histogram"}[drawn.kind] in line
        assert all(f"`{label}`" in line for label in drawn.by)
