"""Several router processes on one port: replacement of children, and their end."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.process import Process, router_process
from tests.fakes.router import check, eventually
from tests.fakes.worker import FakeWorker, fake_workers
from tests.processes import descendants, wait_gone
from triptych.router.serving.processes import Processes


@asynccontextmanager
async def two_processes() -> AsyncIterator[Process]:
    """A router of two processes, both serving."""
    worker = FakeWorker(dimensions=64)
    async with fake_workers(worker), router_process(worker, ROUTER_PROCESSES="2") as router:
        await until_both_serve(router)
        yield router


async def until_both_serve(router: Process) -> None:
    """Wait until both children serve."""
    await eventually(lambda: len(running(router)) == 2)
    await router.until_it_answers("/ready")


def running(router: Process) -> list[int]:
    """The children that have an event loop, so their imports are done."""
    return [child.pid for child in descendants(router.process.pid) if has_loop(child.pid)]


def has_loop(pid: int) -> bool:
    try:
        return any("eventpoll" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


async def serves_new_connections(router: Process) -> None:
    """Check that each of some requests on connections of their own has its vector."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=router.client.base_url, trust_env=False, timeout=GUARD_SECONDS, limits=limits
    ) as client:
        for number in range(20):
            body = {"input": [f"text {number}"], "task": "retrieval.query"}
            check(await client.post("/v1/embeddings", json=body), body["input"])


async def test_killed_parent_ends_its_children() -> None:
    async with two_processes() as router:
        children = descendants(router.process.pid)
        assert len(children) == 2
        [left] = {child.environ()["PROMETHEUS_MULTIPROC_DIR"] for child in children}
        assert await router.ended(signal.SIGKILL) == -signal.SIGKILL
        assert wait_gone(children)
        shutil.rmtree(left)


async def test_ended_child_is_replaced_and_all_stop_together() -> None:
    async with two_processes() as router:
        first, second = descendants(router.process.pid)
        [directory] = {Path(child.environ()["PROMETHEUS_MULTIPROC_DIR"]) for child in (first, second)}
        assert directory.is_dir()
        for victim, how in ((first, signal.SIGKILL), (second, signal.SIGTERM)):
            victim.send_signal(how)
            assert wait_gone([victim])
            # The other child serves these, since a new one takes longer to start.
            await serves_new_connections(router)
            await until_both_serve(router)
            await serves_new_connections(router)
        children = descendants(router.process.pid)
        assert await router.ended(signal.SIGTERM) == 0
        assert wait_gone(children)
        assert not directory.exists()


@pytest.mark.parametrize(("code", "starts"), [(1, 3), (os.EX_CONFIG, 1)])
async def test_failing_children_end_the_parent(code: int, starts: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f"printf x >> {log}; exit {code}"]
    listener = socket.create_server(("127.0.0.1", 0))
    async with hang_guard():
        assert await Processes(1, [listener], command=command, delays=(0.0,), start_tries=3).run() == code
    assert len(log.read_text()) == starts


@pytest.mark.parametrize("fault", ["exits at once", "cannot be started"])
async def test_failed_replacement_is_retried(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as another child lives."""
    program, pids = tmp_path / "program", tmp_path / "pids"
    replace_file(program, f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 100\n")
    listener = socket.create_server(("127.0.0.1", 0))
    # The first two count as alive at once.
    kept = Processes(2, [listener], command=[str(program)], brief_seconds=0.0, delays=(0.0,), start_tries=3)
    running = asyncio.create_task(kept.run())
    await eventually(lambda: len(started(pids)) == 2)
    first, second = started(pids)
    if fault == "exits at once":
        replace_file(program, "#!/bin/sh\nexit 1\n")
    else:
        program.rename(tmp_path / "away")
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: caplog.text.count("; another starts in") > 6 or running.done())
    os.kill(second, 0)
    replace_file(program, f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 100\n")
    await eventually(lambda: len(started(pids)) == 3 or running.done())
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


def started(pids: Path) -> list[int]:
    return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []


def replace_file(program: Path, text: str) -> None:
    """Replace `program` by a rename, since a file that is open for writing cannot be executed."""
    new = program.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o755)
    new.rename(program)
