"""Traces of a router, as a collector receives them."""

import asyncio
import signal

from tests.fakes.collector import Collector, attributes, collecting
from tests.fakes.process import router_process
from tests.fakes.router import check
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.test_shared_metrics import page_when
from tests.metrics import value
from triptych.workers.shared.contract import REQUESTS_HEADER

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
QUESTION = {"input": ["a"], "task": "retrieval.query"}


def settings(collector: Collector, delay_seconds: float = 0.02) -> dict[str, str]:
    delay = f"{1000 * delay_seconds:.0f}"
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": delay}


async def test_trace_spans_caller_to_worker() -> None:
    """Also spans that are sent only when the router stops."""
    worker = FakeWorker()
    async with (
        collecting() as collector,
        fake_workers(worker),
        router_process(worker, **settings(collector, delay_seconds=3600)) as router,
    ):
        await router.until_it_answers("/ready")
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "f" * 32}
        reply = await router.client.post("/v1/embeddings", json=QUESTION, headers=headers)
        check(reply, ["a"])
        assert not collector.spans
        assert await router.ended(signal.SIGTERM) == 0
        [request] = collector.named("POST /v1/embeddings")
        [wait], [batch] = collector.named("queue"), collector.named("batch")
    assert collector.services == {"triptych-router"}
    assert {span.trace_id.hex() for span in (request, wait, batch)} == {TRACE}
    assert request.parent_span_id.hex() == CALLER
    assert wait.parent_span_id == batch.parent_span_id == request.span_id
    assert request.start_time_unix_nano <= wait.start_time_unix_nano <= wait.end_time_unix_nano
    assert wait.end_time_unix_nano <= batch.end_time_unix_nano
    # The batch, which other requests may share, may end after the request.
    assert batch.start_time_unix_nano <= request.end_time_unix_nano
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["http.route"] == "/v1/embeddings"
    assert attributes(request)["triptych.request_id"] == "f" * 32
    assert attributes(batch)["server.port"] == worker.port
    assert attributes(batch)["triptych.outcome"] == "done"
    [sent] = worker.headers
    assert sent["traceparent"] == f"00-{TRACE}-{batch.span_id.hex()}-01"
    assert sent[REQUESTS_HEADER] == "f" * 32


async def test_batch_span_links_all_requests() -> None:
    worker = FakeWorker()
    async with (
        collecting() as collector,
        fake_workers(worker),
        router_process(worker, ROUTER_LANES="1", **settings(collector)) as router,
    ):
        await router.until_it_answers("/ready")
        worker.mode = "held"
        first = asyncio.create_task(router.ask("first"))
        await worker.until_batches(1)
        worker.script.append("overloaded")
        others = [asyncio.create_task(router.ask(text)) for text in ("second", "third")]
        waiting = {"pool": "retrieval", "class": "interactive"}
        await page_when(
            router.client, lambda page: value(page, "triptych_router_queue_items", **waiting) == 2
        )
        worker.mode = "healthy"
        worker.gate.set()
        for reply in await asyncio.gather(first, *others):
            assert reply.status_code == 200
        batches = await collector.until("batch", 3)
        requests = await collector.until("POST /v1/embeddings", 3)
    assert [attributes(batch)["triptych.outcome"] for batch in batches] == ["done", "overloaded", "done"]
    for batch in batches[1:]:
        members = [batch.parent_span_id, *(link.span_id for link in batch.links)]
        assert members == [requests[1].span_id, requests[2].span_id]
    assert [[event.name for event in request.events] for request in requests] == [[], ["retry"], ["retry"]]
