"""Several router processes on one port: shared accepts, replacement of children, and stopping."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.process import Process, router_process
from tests.fakes.router import check, eventually
from tests.fakes.worker import FakeWorker, fake_workers
from tests.processes import descendants, wait_gone
from triptych.router.serving import processes
from triptych.router.serving.processes import Processes


@asynccontextmanager
async def two_processes(worker: FakeWorker) -> AsyncIterator[Process]:
    """A router of two processes, both serving."""
    async with router_process(worker, ROUTER_PROCESSES="2") as router:
        await until_both_serve(router)
        yield router


async def until_both_serve(router: Process) -> None:
    """Wait until both children serve."""
    await eventually(lambda: len(running(router)) == 2)
    await router.until_it_answers("/ready")


def running(router: Process) -> list[int]:
    """The children that have an event loop, so their imports are done."""
    return [pid for pid in descendants(router.process.pid) if has_loop(pid)]


def has_loop(pid: int) -> bool:
    try:
        return any("eventpoll" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


async def ask_on_new_connection(router: Process, text: str) -> httpx.Response:
    """Ask on a new connection."""
    async with httpx.AsyncClient(
        base_url=router.client.base_url, trust_env=False, timeout=GUARD_SECONDS, verify=False
    ) as client:
        return await client.post("/v1/embeddings", json={"input": [text], "task": "retrieval.query"})


async def test_processes_share_a_port_and_stop_together() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), two_processes(worker) as router:
        children = descendants(router.process.pid)
        shared = {directory_of(pid) for pid in children}
        assert len(shared) == 1
        [directory] = shared
        assert directory.is_dir()
        for number in range(20):
            check(await ask_on_new_connection(router, f"text {number}"), [f"text {number}"])
        pidfds = [os.pidfd_open(pid) for pid in children]
        assert await router.ended(signal.SIGTERM) == 0
        assert wait_gone(pidfds)
        assert not directory.exists()


def directory_of(pid: int) -> Path:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    [value] = [variable for variable in variables if variable.startswith("PROMETHEUS_MULTIPROC_DIR=")]
    return Path(value.partition("=")[2])


async def test_killed_parent_ends_its_children() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), two_processes(worker) as router:
        pidfds = [os.pidfd_open(pid) for pid in descendants(router.process.pid)]
        assert len(pidfds) == 2
        assert await router.ended(signal.SIGKILL) == -signal.SIGKILL
        assert wait_gone(pidfds)


async def test_ended_child_is_replaced() -> None:
    worker = FakeWorker()
    async with fake_workers(worker), two_processes(worker) as router:
        first, second = descendants(router.process.pid)
        for victim, how in ((first, signal.SIGKILL), (second, signal.SIGTERM)):
            ended = os.pidfd_open(victim)
            os.kill(victim, how)
            assert wait_gone([ended])
            # The other child serves these, since a new one takes longer to start.
            for number in range(20):
                check(await ask_on_new_connection(router, f"text {number}"), [f"text {number}"])
            await until_both_serve(router)
            for number in range(20):
                check(await ask_on_new_connection(router, f"text {number}"), [f"text {number}"])
        assert await router.ended(signal.SIGTERM) == 0


@pytest.mark.parametrize(("code", "starts"), [(1, 3), (os.EX_CONFIG, 1)])
async def test_failing_children_end_the_parent(
    code: int, starts: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_delays(monkeypatch, tries=3)
    log = tmp_path / "log"
    command = [sys.executable, "-c", f"open({str(log)!r}, 'a').write('x'); raise SystemExit({code})"]
    assert await run(command) == code
    assert len(log.read_text()) == starts


def no_delays(monkeypatch: pytest.MonkeyPatch, tries: int) -> None:
    monkeypatch.setattr(processes, "DELAYS", (0.0,))
    monkeypatch.setattr(processes, "START_TRIES", tries)


@pytest.mark.parametrize("fault", ["exits at once", "cannot be started"])
async def test_failed_replacement_is_retried(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as another child lives."""
    no_delays(monkeypatch, tries=3)
    # The first two count as alive at once.
    monkeypatch.setattr(processes, "BRIEF_SECONDS", 0.0)
    program, pids = tmp_path / "program", tmp_path / "pids"
    program.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 100\n")
    program.chmod(0o755)
    listener = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(Processes(2, [listener], command=[str(program)]).run())
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


async def run(command: Sequence[str]) -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    async with hang_guard():
        return await Processes(1, [listener], command=command).run()


async def test_drain_notice_keeps_accepting() -> None:
    worker = FakeWorker()
    settings = {"ROUTER_PROCESSES": "2", "ROUTER_DRAIN_NOTICE_SECONDS": "1000"}
    async with fake_workers(worker), router_process(worker, **settings) as router:
        await until_both_serve(router)
        router.process.send_signal(signal.SIGTERM)
        while await router.answers("/ready"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for number in range(10):
            check(await ask_on_new_connection(router, f"text {number}"), [f"text {number}"])
        assert await router.ended(signal.SIGTERM) == 0
