"""Whole load tests against a router over workers that are right, slow, stalled, wrong or absent."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import PATIENT, RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.loadtest import Loadtest, command, loadtest, started
from tests.unit.loadtests.test_generator import answering
from triptych.loadtests.histogram import bucket
from triptych.loadtests.results import WRONG
from triptych.loadtests.server_processes import free_port
from triptych.loadtests.slo import KEPT_UP
from triptych.router.api import work
from triptych.workers.shared.contract import POOLS

SCENARIO = """
about = "Every kind of request, for every pool."
languages = { en = 2, zh = 1 }
[[flows]]
name = "query"
weight = 3
task = "retrieval.query"
[[flows]]
name = "code"
task = "code.query"
inputs = 4
encoding = "float"
[[flows]]
name = "pair"
task = "text-matching"
inputs = 2
[[flows]]
name = "image"
task = "retrieval.passage"
images = 0.5
inputs = 2
picture = { width = 56, height = 56 }
[[flows]]
name = "document"
task = "retrieval.passage"
late_chunking = true
inputs = 3
[[flows]]
name = "vectors"
task = "retrieval.query"
multivector = true
inputs = 2
[[flows]]
name = "rerank"
kind = "rerank"
task = "retrieval.query"
inputs = 8
"""
INPUTS = {"query": 1, "code": 4, "pair": 2, "image": 2, "document": 3, "vectors": 2, "rerank": 8}


def pools() -> list[FakeWorker]:
    return [FakeWorker(pool, dimensions=256) for pool in POOLS]


def address(router: RunningRouter) -> str:
    return str(router.client.base_url)


@contextlib.asynccontextmanager
async def loading(
    folder: Path, *arguments: str, workers: Sequence[FakeWorker], **settings: Any
) -> AsyncIterator[tuple[RunningRouter, Loadtest]]:
    """A run whose load has begun, of a router in front of `workers`."""
    async with (
        fake_workers(*workers),
        running_router(*workers, **settings) as router,
        started(folder, "run", address(router), *arguments) as running,
    ):
        await running.loads()
        yield router, running


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO)
    return str(file)


async def test_good_deployment_passes(tmp_path: Path, scenario: str) -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers, **PATIENT) as router:
        done = await loadtest(
            tmp_path,
            "run",
            address(router),
            *("--scenario", scenario, "--rate", "60", "--seconds", "4", "--arrivals", "constant"),
            *("--processes", "2", "--slo", "failures=0%"),
        )
    assert done.code == 0, done.output
    assert sum(done.count("sent", flow) for flow in INPUTS) == 240
    for flow, inputs in INPUTS.items():
        assert done.failures(flow) == {}
        assert sum(done.times("total", flow).values()) == done.count("sent", flow)
        assert done.count("items", flow) == inputs * done.count("done", flow) > 0
        assert done.count("tokens", flow) > 0
        # What the client waits for holds what the router took.
        assert done.percentile(0.5, "router", flow) < done.percentile(0.5, "total", flow)
    assert done.count("sent") == pytest.approx(240 * 3 / 9, rel=0.3)
    run = done.run
    assert [process.name for process in run.segments[0].processes] == ["process 1", "process 2"]
    assert run.golden.complaints == []
    assert {"queue", "batch", "engine"} <= {series.panel for series in run.series}
    assert "CHECKS FAILED" not in done.output + done.html


async def test_recorded_golden_vectors_find_swapped_pools(tmp_path: Path, scenario: str) -> None:
    workers = pools()
    file = tmp_path / "golden"
    async with fake_workers(*workers), running_router(*workers, **PATIENT) as router:
        recorded = await loadtest(file, "golden", address(router))
        assert recorded.code == 0, recorded.output
        # Each pool is right in itself, and they have changed places.
        workers[0].vectors_of, workers[1].vectors_of = workers[1].vectors_of, workers[0].vectors_of
        arguments = ("--scenario", scenario, "--golden", str(file / "run"), "--rate", "60", "--seconds", "4")
        # With this seed some requests of this flow have a golden text.
        done = await loadtest(tmp_path, "run", address(router), *arguments, "--seed", "seed")
    assert done.code == 1
    assert done.run.golden.complaints != []
    for text in (done.output, done.html):
        # Before any figure.
        assert text.index("CHECKS FAILED") < text.index("At 60 requests/s")
    assert done.failures("query").get(f"{WRONG}golden", 0) > 0
    assert done.failures("code") == {}


async def test_one_wrong_replica_of_two_is_found(tmp_path: Path) -> None:
    workers = [FakeWorker(dimensions=64) for _ in range(2)]
    for worker in workers:
        worker.mode, worker.delay = "slow", 0.01
    arguments = ("--rate", "200", "--seconds", "5")
    async with loading(tmp_path, *arguments, workers=workers, lanes=1) as (_, running):
        workers[1].vectors_of = "code"
        done = await running.finished()
    assert done.code == 1
    # A slow machine may also have refusals.
    assert 0 < done.failures()[f"{WRONG}golden"] < done.run.golden.compared


@pytest.mark.parametrize("mode", ["error", "hanging"])
async def test_failures_are_counted_by_kind(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = FakeWorker(dimensions=64)
    arguments = ("--rate", "30", "--seconds", "3", "--arrivals", "constant")
    async with loading(tmp_path, *arguments, workers=[worker]) as (router, running):
        # Only now: before the load, a late reply would end the run.
        monkeypatch.setattr(work, "seconds_of", lambda *_: 1.0)
        worker.mode = mode  # type: ignore[assignment]
        done = await running.finished()
        await router.until_idle()
    assert sum(done.failures().values()) + sum(done.times().values()) == done.count("sent") == 90
    # A request that was in flight has its whole time.
    assert set(done.failures()) <= {"HTTP 429", "HTTP 500", "HTTP 503", "HTTP 504", "timeout"}
    assert sum(done.failures().values()) > 0
    assert all(kind in done.output and kind in done.html for kind in done.failures())


async def test_stall_counts_for_all_requests_due(tmp_path: Path) -> None:
    worker = FakeWorker(dimensions=64)
    # So long that the worker is held before the load is over, on any machine.
    arguments = ("--rate", "30", "--seconds", "15", "--arrivals", "constant")
    async with loading(tmp_path, *arguments, workers=[worker], lanes=1, **PATIENT) as (router, running):
        worker.mode = "held"
        await running.until(lambda: router.fleet.pools["retrieval"].queue.items >= 30)
        worker.mode = "healthy"
        worker.gate.set()
        done = await running.finished()
    assert done.failures() == {}
    # The first of thirty that were due 1/30 s apart waited for a second.
    assert done.percentile(1.0) > 0.9
    assert sum(count for number, count in done.times().items() if number > bucket(0.45)) >= 12


async def test_capacity_is_at_most_the_servers(tmp_path: Path) -> None:
    worker = FakeWorker(dimensions=64)
    worker.mode, worker.delay = "slow", 0.008
    async with fake_workers(worker), running_router(worker, lanes=1, batch_items=1) as router:
        objective = ("--slo", "p99=2s,failures=0.1%")
        arguments = (*objective, "--start", "65", "--seconds", "3", "--precision", "1")
        done = await loadtest(tmp_path, "find-capacity", address(router), *arguments)
    capacity = done.run.capacity
    assert capacity is not None
    # On a busy machine it may find less, or nothing.
    assert done.code == (0 if capacity.rate else 1), done.output
    # One at a time, each at least 8 ms. A server that answers nine of ten counts as keeping up.
    assert capacity.rate <= 125 / KEPT_UP
    if capacity.limited_by == "server":
        assert capacity.fails_at is not None
        assert capacity.rate < capacity.fails_at


async def test_killed_process_leaves_no_result(tmp_path: Path) -> None:
    arguments = ("--rate", "30", "--seconds", "60", "--processes", "2")
    async with loading(tmp_path, *arguments, workers=[FakeWorker(dimensions=64)]) as (_, running):
        # The first child is multiprocessing's own.
        psutil.Process(running.process.pid).children()[-1].kill()
        done = await running.finished()
    assert done.code == 2
    assert "process" in done.output
    assert not list(done.folder.iterdir())


async def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    worker = FakeWorker(dimensions=64)
    arguments = ("--shape", "soak", "--rate", "30", "--seconds", "3600")
    async with loading(tmp_path, *arguments, workers=[worker]) as (_, running):
        before = len(worker.batches)
        # A process reports once a second.
        await running.until(lambda: len(worker.batches) >= before + 60)
        running.process.send_signal(signal.SIGINT)
        done = await running.finished()
    assert done.code == 0, done.output
    [measured] = done.run.segments
    assert measured.segment.seconds < 3600
    assert sum(done.times().values()) > 0
    assert "stopped by Ctrl-C" in done.output


async def test_second_ctrl_c_ends_at_once_and_says_what_is_missing(tmp_path: Path) -> None:
    worker, silent = FakeWorker(dimensions=64), socket.create_server(("127.0.0.1", 0))
    metrics = ("--metrics", f"http://127.0.0.1:{silent.getsockname()[1]}")
    arguments = ("--rate", "100", "--seconds", "3600", *metrics)
    async with loading(tmp_path, *arguments, workers=[worker]) as (_, running):
        before = len(worker.batches)
        # A process reports once a second.
        await running.until(lambda: len(worker.batches) >= before + 200)
        # Writing the report waits for a reader.
        os.mkfifo(running.folder / "report.html")
        running.process.send_signal(signal.SIGINT)
        await running.until((running.folder / "run.json").exists)
        running.process.send_signal(signal.SIGINT)
        done = await running.finished()
    silent.close()
    assert done.code == 130, done.output
    assert "report.html is missing" in done.output
    assert sum(done.times().values()) > 0


async def test_joined_processes_end_with_the_run(tmp_path: Path) -> None:
    worker, place = FakeWorker(dimensions=64), f"127.0.0.1:{free_port()}"
    # A request may take longer than this test.
    patient = ("--timeout", str(10 * GUARD_SECONDS))
    arguments = ("--rate", "30", "--seconds", "60", "--join", place, *patient)
    async with command("join", place) as process:
        async with loading(tmp_path, *arguments, workers=[worker]) as (_, running):
            worker.mode = "hanging"
            await eventually(lambda: worker.active > 0)
            running.process.send_signal(signal.SIGINT)
            done = await running.finished()
        async with hang_guard():
            assert await process.wait() == 0
    # Without a result, if the process had not reported yet.
    assert "stopped" in done.output


async def test_unusable_target_is_named(tmp_path: Path) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with await asyncio.start_server(answering(moved), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for target, said in ((port, "HTTP 307, redirects to /elsewhere"), (1, "does not answer")):
            done = await loadtest(tmp_path, "run", f"http://127.0.0.1:{target}", "--rate", "5")
            assert done.code == 2
            assert f"http://127.0.0.1:{target}/v1/embeddings" in done.output
            assert said in done.output
            assert "Traceback" not in done.output
