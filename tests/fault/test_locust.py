"""The locustfile, run by locust itself against a router over fake workers."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from tests.fakes.process import ROOT
from tests.fakes.router import eventually, running_router
from tests.fakes.site import site
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.loadtests.golden import Golden
from triptych.workers.shared.contract import POOLS


async def locust(url: str, *arguments: str, until: Callable[[], bool] = lambda: False) -> tuple[int, str]:
    """Run locust without its web page until `until` holds or it ends by itself; its exit code and output.

    The output ends with every request and failure. locust's CSV files lack those of the last second.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--host", url),
        *arguments,
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


def pools() -> list[FakeWorker]:
    return [FakeWorker(pool, dimensions=64) for pool in POOLS]


async def test_locust_sends_tagged_scenarios() -> None:
    workers = pools()
    retrieval, matching, code = workers
    async with fake_workers(*workers), running_router(*workers) as router:
        exit_code, output = await locust(
            str(router.client.base_url),
            *("--tags", "interactive", "code", "-u", "4", "-r", "4", "--processes", "2"),
            # Before the load they are asked about a hundred times by each process.
            until=lambda: min(len(retrieval.items), len(code.items)) > 500,
        )
    assert exit_code == 0, output
    assert "interactive: query" in output
    assert "code: question" in output
    assert "bulk: " not in output
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
            url,
            *("--tags", "interactive", "-u", "8", "-r", "8", "--golden", str(golden)),
            # One request in fifty has a golden text.
            until=lambda: len(workers[0].items) > 1000,
        )
    assert code == 1, output
    assert "wrong: golden" in output


async def test_locust_stops_without_a_server() -> None:
    code, output = await locust("http://127.0.0.1:1", "--tags", "interactive", "-u", "1")
    assert code == 2
    assert "127.0.0.1:1" in output


async def test_locust_follows_no_redirect(tmp_path: Path) -> None:
    vector = {"data": [{"index": 0, "embedding": "AACAPw=="}], "usage": {}}

    async def answer(request: web.Request) -> web.Response:
        # The first asks how long texts are.
        moved = len(server.requests) > 1 and request.path != "/elsewhere"
        return web.json_response(
            vector, status=307 if moved else 200, headers={"Location": "/elsewhere"} if moved else None
        )

    golden = tmp_path / "golden.npz"
    with golden.open("wb") as file:
        Golden("nowhere").save(file)
    async with site(answer) as server:
        code, output = await locust(
            server.url,
            *("--tags", "interactive", "-u", "1", "--dialect", "openai", "--golden", str(golden)),
            until=lambda: len(server.requests) > 5,
        )
    assert code == 1, output
    assert "HTTP 307" in output
    assert not any(request.path == "/elsewhere" for request in server.requests)
