"""The benchmark of the router alone, with a real router and a stub worker."""

from pathlib import Path

from loadtests.bench.rows import Row
from loadtests.bench.sections.router_alone import (
    ALONE,
    BUSY,
    DIRECT,
    FORMS,
    OVERHEAD,
    THROUGH,
    StubWorker,
    measure,
)
from loadtests.processes import Router

REQUESTS = {BUSY: 100, ALONE: 10}


async def measured(folder: Path, status: int, timeout_seconds: float) -> list[Row]:
    stub = StubWorker(folder / "stub.log", status)
    try:
        router = Router(
            folder / "router.log",
            [("retrieval", stub.wait_until_ready().url)],
            request_timeout_seconds=timeout_seconds,
        )
        try:
            return await measure(router.wait_until_ready(), stub, 1, REQUESTS[BUSY], REQUESTS[ALONE])
        finally:
            router.kill()
    finally:
        stub.kill()


async def test_every_reply_form_is_measured(tmp_path: Path) -> None:
    # So much time that a slow machine has no request refused.
    found = await measured(tmp_path, 200, timeout_seconds=3600)
    rows = {(row.load, row.system): row for row in found}
    assert set(rows) == {*((BUSY, f"router, {form}") for form in FORMS), (ALONE, DIRECT), (ALONE, THROUGH)}
    for row in rows.values():
        assert row.failures == {}
        assert row.requests == row.items == REQUESTS[row.load]
        assert len(row.items_per_second) == len(row.p50_ms) == 1
    assert len(rows[ALONE, THROUGH].figures[OVERHEAD]) == 1


async def test_failing_worker_has_no_throughput(tmp_path: Path) -> None:
    for row in await measured(tmp_path, 500, timeout_seconds=1):
        assert row.items == 0
        assert sum(row.failures.values()) == row.requests == REQUESTS[row.load]
        assert row.items_per_second == [0.0]
