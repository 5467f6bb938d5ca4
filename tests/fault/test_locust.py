"""The locustfile, run by locust itself against a router over fake workers."""

import asyncio
import csv
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fakes.process import ROOT
from tests.fakes.router import eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.workers.shared.contract import POOLS


async def locust(
    folder: Path, url: str, *arguments: str, until: Callable[[], bool] = lambda: False
) -> tuple[int, str]:
    """Run locust without its web page until `until` holds or it ends by itself; its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--host", url),
        *("--csv", str(folder / "run"), *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    ended = asyncio.ensure_future(process.communicate())
    try:
        await eventually(lambda: ended.done() or until())
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        output, _ = await ended
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"run_{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pools() -> list[FakeWorker]:
    return [FakeWorker(pool, dimensions=64) for pool in POOLS]


async def test_locust_sends_tagged_scenarios(tmp_path: Path) -> None:
    workers = pools()
    retrieval, matching, code = workers
    async with fake_workers(*workers), running_router(*workers) as router:
        exit_code, output = await locust(
            tmp_path,
            str(router.client.base_url),
            *("--tags", "interactive", "code", "-u", "4", "-r", "4", "--processes", "2"),
            # Before the load they are asked about a hundred times by each process.
            until=lambda: min(len(retrieval.items), len(code.items)) > 500,
        )
    assert exit_code == 0, output
    names = {row["Name"] for row in rows(tmp_path, "stats")}
    assert {"interactive: query", "code: question"} <= names
    assert not any("mix" in name or "bulk" in name for name in names)
    assert rows(tmp_path, "failures") == []
    # Only golden texts for the pool of no scenario.
    assert len(matching.items) < 50


async def test_locust_names_wrong_vectors(tmp_path: Path) -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        url, golden = str(router.client.base_url), tmp_path / "golden.npz"
        recorder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "triptych.loadtests", "golden", "--url", url, "--out", str(golden)),
            cwd=ROOT,
        )
        assert await recorder.wait() == 0
        workers[0].vectors_of = "code"
        code, output = await locust(
            tmp_path,
            url,
            *("--tags", "interactive", "-u", "8", "-r", "8", "--golden", str(golden)),
            # One request in fifty has a golden text.
            until=lambda: len(workers[0].items) > 1000,
        )
    assert code == 1, output
    [error] = {row["Error"] for row in rows(tmp_path, "failures")}
    assert "wrong: golden" in error


async def test_locust_stops_without_a_server(tmp_path: Path) -> None:
    code, output = await locust(tmp_path, "http://127.0.0.1:1", "--tags", "interactive", "-u", "1")
    assert code == 2
    assert "127.0.0.1:1" in output
