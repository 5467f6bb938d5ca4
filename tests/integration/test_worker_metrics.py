"""What a worker with a real engine counts."""

import httpx

from tests.engine_workers import Worker
from tests.metrics import Page, parse, value
from triptych.workers.shared.contract import METRICS_PATH, Item, Text, Vector


def read(worker: Worker) -> Page:
    return parse(httpx.get(worker.url + METRICS_PATH).text)


def test_items_tokens_and_times_are_counted(pools: dict[str, Worker]) -> None:
    worker = pools["retrieval"]
    before = read(worker)
    frames = worker.encode([Item(Text(text, "query")) for text in ("a question", "another one")])
    after = read(worker)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("triptych_worker_items_total", outcome="vector") == 2
    tokens = sum(frame.tokens for frame in frames if isinstance(frame, Vector))
    assert grown("triptych_worker_tokens_total") == tokens > 0
    assert grown("triptych_worker_engine_duration_seconds_count") == 2
    assert grown("triptych_worker_engine_duration_seconds_sum") > 0
    assert grown("triptych_worker_prepare_duration_seconds_count") == 1
    assert value(after, "triptych_worker_waiting_items") == 0
    # The engine's process counts as well.
    own = value(after, "process_resident_memory_bytes")
    assert value(after, "triptych_worker_resident_memory_bytes") > 1.5 * own
