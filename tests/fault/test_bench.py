"""The benchmark of the router alone, end to end and short: real router, stub worker."""

from pathlib import Path

from loadtests.bench.results import Row
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


async def measured(folder: Path, status: int, seconds: float) -> list[Row]:
    stub = StubWorker(folder / "stub.log", status)
    try:
        # What a worker that fails leaves undone waits no longer than a second. One that serves is not to be
        # refused work because it would take longer than that.
        router = Router(
            folder / "router.log",
            [("retrieval", stub.wait_until_ready().url)],
            request_timeout_seconds=30 if status == 200 else 1,
        )
        try:
            return await measure(router.wait_until_ready(), stub, rounds=1, seconds=seconds)
        finally:
            router.kill()
    finally:
        stub.kill()


async def test_every_reply_form_is_measured_without_a_failure(tmp_path: Path) -> None:
    rows = {(row.load, row.system): row for row in await measured(tmp_path, 200, 0.1)}
    assert set(rows) == {*((BUSY, f"router, {form}") for form in FORMS), (ALONE, DIRECT), (ALONE, THROUGH)}
    for row in rows.values():
        assert row.requests == row.items > 0
        assert row.failures == {}
        assert row.items_per_second[0] > 0
    assert rows[ALONE, THROUGH].figures[OVERHEAD][0] > 0


async def test_a_worker_that_fails_leaves_no_throughput_and_every_failure_counted(tmp_path: Path) -> None:
    for row in await measured(tmp_path, 500, 0.05):
        assert row.items == 0
        assert sum(row.failures.values()) == row.requests > 0
        assert row.items_per_second == [0.0]
