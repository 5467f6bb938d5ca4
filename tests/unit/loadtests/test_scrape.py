"""From pages of metrics to series: what is drawn, over gaps, restarts and long runs."""

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loadtests.results import Series
from loadtests.scrape import DRAWN, MOST_POINTS, Scraper, discover, parse

DOCUMENT = Path(__file__).parents[3] / "docs" / "METRICS.md"


def series(*pages: tuple[float, str], source: str = "router") -> dict[str, Series]:
    scraper = Scraper({source: ""})
    for at, page in pages:
        scraper.add(at, page, source)
    return {f"{one.panel}: {one.name}": one for one in scraper.series()}


def page(samples: Mapping[str, float]) -> str:
    return "".join(f"{name} {value}\n" for name, value in samples.items())


def tokens(*values: tuple[float, float], pool: str = "code") -> list[tuple[float, str]]:
    return [(at, page({f'triptych_router_tokens_total{{pool="{pool}"}}': value})) for at, value in values]


def waits(total: float, count: float, name: str = "interactive") -> str:
    labels = f'{{class="{name}",pool="code"}}'
    return page(
        {
            f'triptych_router_queue_wait_seconds_bucket{{class="{name}",le="1",pool="code"}}': 99,
            f"triptych_router_queue_wait_seconds_sum{labels}": total,
            f"triptych_router_queue_wait_seconds_count{labels}": count,
        }
    )


def test_pages_as_the_client_library_writes_them_are_read() -> None:
    registry = CollectorRegistry()
    queue = Gauge("triptych_router_queue_items", "Waiting.", ["pool", "class"], registry=registry)
    queue.labels("code", "bulk").set(7)
    rejected = Counter("triptych_router_rejections", "Refused.", ["reason"], registry=registry)
    rejected.labels("an odd, {braced} one").inc(3)
    sizes = Histogram("triptych_router_batch_items", "Sizes.", ["pool"], registry=registry)
    sizes.labels("code").observe(5)
    for other in ("triptych_router_processes", "triptych_router_queue_items_too"):
        Gauge(other, "Not drawn.", registry=registry).set(2)
    assert parse(generate_latest(registry).decode()) == {
        "triptych_router_queue_items": {(("class", "bulk"), ("pool", "code")): 7.0},
        "triptych_router_rejections_total": {(("reason", "an odd, {braced} one"),): 3.0},
        "triptych_router_batch_items_sum": {(("pool", "code"),): 5.0},
        "triptych_router_batch_items_count": {(("pool", "code"),): 1.0},
    }


def test_what_is_no_number_leaves_a_gap_and_the_rest_can_be_written() -> None:
    name = "vllm:num_requests_waiting"
    found = series(
        (0.0, page({name: 2})), (1.0, page({name: math.nan})), (2.0, f"{name} 1e\n{name}_by_x 5\n")
    )
    assert (found["queue: waiting"].at, found["queue: waiting"].values) == ([0.0], [2.0])
    assert "null" not in msgspec.json.encode(list(found.values())).decode()


def test_a_gauge_is_added_up_over_the_labels_that_are_not_told_apart() -> None:
    name = "triptych_router_replica_batches_in_flight"
    found = series(
        (
            3.0,
            page(
                {
                    f'{name}{{pool="code",replica="10.0.0.1:8101"}}': 2,
                    f'{name}{{pool="code",replica="10.0.0.2:8101"}}': 1,
                    f'{name}{{pool="retrieval",replica="10.0.0.3:8101"}}': 4,
                }
            ),
        )
    )
    assert found["in flight: batches, code"].values == [3.0]
    assert found["in flight: batches, retrieval"].values == [4.0]


def test_a_counter_becomes_what_it_grew_by_a_second() -> None:
    found = series(*tokens((0.0, 100.0), (2.0, 500.0), (3.0, 500.0)))
    assert found["served: tokens, code"] == Series(
        panel="served", name="tokens, code", unit="tokens/s", at=[2.0, 3.0], values=[200.0, 0.0]
    )


def test_a_counter_that_begins_again_has_grown_by_what_it_shows() -> None:
    found = series(*tokens((0.0, 1000.0), (1.0, 1100.0), (2.0, 40.0), (3.0, 90.0)))
    assert found["served: tokens, code"].values == [100.0, 40.0, 50.0]


def test_what_first_happens_during_the_run_counts_from_nothing() -> None:
    refused = page({'triptych_router_rejections_total{reason="POOL_OVERLOADED"}': 6})
    found = series((0.0, ""), (2.0, refused), (4.0, refused))
    assert found["refused: refused, POOL_OVERLOADED"].values == [3.0, 0.0]


def test_a_histogram_becomes_its_mean_over_what_was_new() -> None:
    found = series((0.0, waits(100.0, 50)), (1.0, waits(101.0, 60)), (2.0, waits(105.0, 70)))
    assert found["wait: queue wait, interactive"].at == [1.0, 2.0]
    assert found["wait: queue wait, interactive"].values == pytest.approx([0.1, 0.4])


def test_where_nothing_was_new_a_histogram_has_no_mean() -> None:
    found = series((0.0, waits(1.0, 10)), (1.0, waits(1.0, 10)), (2.0, waits(3.0, 20)))
    assert found["wait: queue wait, interactive"].at == [2.0]


def test_a_histogram_that_begins_again_has_the_mean_of_what_it_shows() -> None:
    found = series((0.0, waits(9.0, 10)), (1.0, waits(20.0, 5)))
    assert found["wait: queue wait, interactive"].values == pytest.approx([4.0])


def test_a_page_that_did_not_come_leaves_a_gap_and_no_zero() -> None:
    found = series(*tokens((0.0, 0.0), (1.0, 100.0), (9.0, 900.0)))
    assert (found["served: tokens, code"].at, found["served: tokens, code"].values) == (
        [1.0, 9.0],
        [100.0, 100.0],
    )


def test_what_was_nothing_throughout_is_left_out_but_for_queues() -> None:
    empty = page(
        {
            'triptych_router_retries_total{pool="code",reason="item_failed"}': 0,
            'triptych_router_queue_items{class="bulk",pool="code"}': 0,
        }
    )
    found = series((0.0, empty), (1.0, empty))
    assert list(found) == ["queue: waiting, code, bulk"]
    assert found["queue: waiting, code, bulk"].values == [0.0, 0.0]


def test_series_name_their_source_where_there_are_several() -> None:
    scraper = Scraper({"router": "", "worker code 10.0.0.1:8101": ""})
    scraper.add(0.0, page({"triptych_worker_waiting_items": 3}), "worker code 10.0.0.1:8101")
    assert [one.name for one in scraper.series()] == ["waiting, worker code 10.0.0.1:8101"]


def test_a_long_run_has_few_points_each_the_mean_of_its_neighbours() -> None:
    count = 2 * MOST_POINTS - 1
    values = [(float(at), page({"vllm:num_requests_running": at % 2 * 2.0})) for at in range(count)]
    found = series(*values)["in flight: running"]
    assert len(found.at) == len(found.values) == MOST_POINTS
    assert found.at[:2] == [0.5, 2.5]
    assert set(found.values[:-1]) == {1.0}
    assert (found.at[-1], found.values[-1]) == (count - 1.0, 0.0)


def test_memory_is_drawn_in_units_of_its_size() -> None:
    [(name, found)] = series(
        (0, page({"triptych_worker_resident_memory_bytes": 300 * 2.0**20})),
        (1, page({"triptych_worker_resident_memory_bytes": 330 * 2.0**20})),
    ).items()
    assert (name, found.unit, found.values) == ("memory: resident", "MiB", [300, 330])


def test_all_that_is_drawn_of_router_and_workers_is_documented() -> None:
    documented = DOCUMENT.read_text()
    ours = [drawn for drawn in DRAWN if drawn.metric.startswith("triptych_")]
    assert [drawn.metric for drawn in ours if f"| `{drawn.metric}` |" not in documented] == []
    for drawn in ours:
        [line] = [line for line in documented.splitlines() if line.startswith(f"| `{drawn.metric}` |")]
        assert {"now": "gauge", "rate": "counter", "mean": "histogram"}[drawn.kind] in line
        assert all(f"`{label}`" in line for label in drawn.by)


def test_workers_are_found_in_the_document_of_a_router() -> None:
    document = [
        {"targets": ["10.0.0.1:8101", "10.0.0.2:8101"], "labels": {"task": "code"}},
        {"targets": [], "labels": {"task": "retrieval"}},
    ]
    assert discover(document) == {
        "worker code 10.0.0.1:8101": "http://10.0.0.1:8101/metrics",
        "worker code 10.0.0.2:8101": "http://10.0.0.2:8101/metrics",
    }
