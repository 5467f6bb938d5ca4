"""Metrics of several router processes: one page for all of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.multiprocess import mark_process_dead

from tests.fakes.hang_guard import hang_guard
from tests.fakes.process import router_process
from tests.fakes.worker import FakeWorker, fake_workers
from tests.metrics import Page, parse, value
from triptych.router.observe.metrics import SHARED_FOLDER


async def page_when(client: httpx.AsyncClient, holds: Callable[[Page], bool]) -> Page:
    """The metrics page, once `holds` is true of it; gauges of other processes are up to a second old."""
    async with hang_guard():
        while True:
            page = parse((await client.get("/metrics")).text)
            if holds(page):
                return page
            await asyncio.sleep(0.02)


async def test_metrics_are_summed_over_processes(tmp_path: Path) -> None:
    worker = FakeWorker()
    answered = {"route": "/v1/embeddings", "status": "200"}
    folder = {SHARED_FOLDER: str(tmp_path)}
    async with (
        fake_workers(worker),
        router_process(worker, **folder) as one,
        router_process(worker, **folder) as other,
    ):
        for router, count in ((one, 3), (other, 2)):
            await router.until_it_answers("/ready")
            for _ in range(count):
                assert (await router.ask("a")).status_code == 200
        for router in (one, other):
            # Items and requests are counted at their end, which may be after the client has its reply.
            page = await page_when(
                router.client,
                lambda page: (
                    value(page, "triptych_router_items_total", pool="retrieval") == 5
                    and value(page, "triptych_router_request_duration_seconds_count", **answered) == 5
                ),
            )
            assert value(page, "triptych_router_batch_items_bucket", pool="retrieval", le="1.0") == 5

        worker.mode = "held"
        seen = len(worker.batches)
        waiting = [asyncio.create_task(router.ask("a")) for router in (one, one, other)]
        await worker.until_batches(seen + 3)
        its = {"pool": "retrieval", "replica": worker.address}
        for router in (one, other):
            page = await page_when(
                router.client,
                lambda page: (
                    value(page, "triptych_router_replica_batches_in_flight", **its) == 3
                    and value(page, "triptych_router_requests_in_flight") == 3
                ),
            )
            assert value(page, "triptych_router_processes") == 2
            memory = value(page, "triptych_router_resident_memory_bytes")
            assert memory == pytest.approx(
                sum(psutil.Process(router.process.pid).memory_info().rss for router in (one, other)), rel=0.1
            )
            assert value(page, "triptych_router_replica_state", state="ready", **its) == 2

        one.process.kill()
        await one.process.wait()
        mark_process_dead(one.process.pid, tmp_path)
        page = parse((await other.client.get("/metrics")).text)
        assert value(page, "triptych_router_processes") == 1
        assert value(page, "triptych_router_requests_in_flight") == 1
        assert value(page, "triptych_router_replica_state", state="ready", **its) == 1
        assert value(page, "triptych_router_request_duration_seconds_count", **answered) == 5
        worker.gate.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        await page_when(
            other.client,
            lambda page: value(page, "triptych_router_request_duration_seconds_count", **answered) == 6,
        )
