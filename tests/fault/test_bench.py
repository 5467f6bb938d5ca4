"""The benchmark of the router alone, with a real router and a stub worker; checkpoints of benchmarks."""

from pathlib import Path

from triptych.loadtests.bench.measure import Row, Scale
from triptych.loadtests.bench.sections.router_alone import ALONE, BUSY, DIRECT, FORMS, THROUGH, measure
from triptych.loadtests.bench.servers import Servers
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.shared.families import V4, V5_NANO


async def measured(folder: Path, status: int, timeout_seconds: float) -> list[Row]:
    servers = Servers(folder)
    try:
        stub = await servers.stub(status)
        router = await servers.router(("retrieval", stub), request_timeout_seconds=timeout_seconds)
        return await measure(Scale(rounds=1, seconds=0.02), router, stub)
    finally:
        servers.stop()


async def test_every_reply_form_is_measured(tmp_path: Path) -> None:
    # So much time that a slow machine has no request refused.
    found = await measured(tmp_path, 200, timeout_seconds=3600)
    systems = [(row.load, row.system) for row in found]
    assert systems == [*((BUSY, f"router, {form}") for form in FORMS), (ALONE, DIRECT), (ALONE, THROUGH)]
    for row in found:
        assert row.failures == {}
        assert row.requests == row.items > 0
        assert len(row.items_per_second) == len(row.p50_ms) == 1


async def test_failing_worker_has_no_throughput(tmp_path: Path) -> None:
    for row in await measured(tmp_path, 500, timeout_seconds=1):
        assert row.items == 0
        assert sum(row.failures.values()) == row.requests > 0
        assert row.items_per_second == [0.0]


async def test_models_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    for family in (V5_NANO, V4):
        variant = await servers.variant(pool=family.pools[0])
        assert read_variant(variant).family is family
