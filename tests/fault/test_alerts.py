"""Causes the faults that the router's alerts are for, and sees them in a real Prometheus.

They are the alerts' expressions. promtool tests how long an alert waits (tests/data/alerts_test.yml).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.load import OpenLoop
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.prometheus import Prometheus, alerts, prometheus

ALERTS = alerts()
Watched = tuple[RunningRouter, FakeWorker, Prometheus]


def job(port: int | None) -> dict[str, Any]:
    return {"job_name": "triptych-router", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}


@asynccontextmanager
async def watched(folder: Path, **settings: Any) -> AsyncIterator[Watched]:
    """A router with one worker, and a Prometheus that scrapes the router and finds nothing wrong."""
    worker = FakeWorker(dimensions=8)
    async with (
        fake_workers(worker),
        running_router(worker, **settings) as router,
        prometheus(folder, [job(router.client.base_url.port)]) as watching,
    ):
        await watching.until("triptych_router_processes")
        for expression in ALERTS.values():
            assert not await watching.query(expression)
        yield router, worker, watching


async def test_lost_worker_alerts_until_it_returns(tmp_path: Path) -> None:
    async with watched(tmp_path) as (_, worker, watching):
        await worker.die()
        for alert in ("TriptychPoolDown", "TriptychReplicaDown"):
            await watching.until(ALERTS[alert])
        await worker.start()
        for alert in ("TriptychPoolDown", "TriptychReplicaDown"):
            await watching.until(ALERTS[alert], exists=False)


async def test_failing_worker_alerts(tmp_path: Path) -> None:
    async with watched(tmp_path) as (router, worker, watching):
        worker.mode = "flaky"
        load = OpenLoop(router)
        await watching.until(ALERTS["TriptychRetries"])
        worker.mode = "error"
        await watching.until(ALERTS["TriptychErrors"])
        await load.stop()


async def test_full_queue_alerts(tmp_path: Path) -> None:
    sizes = {"max_items": 4, "max_pdf_pages": 4, "queue_items": 4}
    async with watched(tmp_path, **sizes) as (router, worker, watching):
        worker.mode = "held"
        load = OpenLoop(router, size=4)
        await watching.until(ALERTS["TriptychQueueFull"])
        worker.gate.set()
        await load.stop()
