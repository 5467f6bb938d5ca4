"""The processes that render PDFs: timeouts, crashes, limits and confinement."""

import asyncio
import base64
import errno
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.unit.router.pdfs import coloured_pdf, endless_pdf, renderer
from triptych.router.errors import Internal, MediaInvalid
from triptych.router.media import pdf
from triptych.router.media.pdf_process import (
    MAX_CPU_SECONDS,
    MAX_MESSAGE_BYTES,
    Message,
)
from triptych.router.media.sandbox import MAX_MEMORY_BYTES


async def test_timeouts_of_page_and_document(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    clock, receive = loop.time, pdf.receive
    passed = 0.0

    async def slowly(process: asyncio.subprocess.Process) -> Message:
        nonlocal passed
        message = await receive(process)
        passed += 60
        # Timers that are due run within the next two iterations of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        return message

    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    monkeypatch.setattr(pdf, "receive", slowly)
    monkeypatch.setattr(pdf, "START_SECONDS", GUARD_SECONDS)
    command = [sys.executable, "-c", PAGES]
    async with renderer(1, page_seconds=100, document_seconds=600, command=command) as rendering:
        assert await rendering.render(b"", 4, "f") == [b"page"] * 4
    async with renderer(1, page_seconds=100, document_seconds=150, command=command) as rendering:
        with pytest.raises(MediaInvalid, match=r"^f: .*too long.* 150 s for all"):
            await rendering.render(b"", 4, "f")
        assert not rendering.idle


_SPEAK = """
import sys, time
from triptych.router.media.pdf_process import *
def say(message): sys.stdout.buffer.write(encode(message)); sys.stdout.buffer.flush()
say(Ready())
size = int.from_bytes(sys.stdin.buffer.read(4), "little"); sys.stdin.buffer.read(size)
"""

PAGES = _SPEAK + "for _ in range(4): say(Page(b'page'))\nsay(Done())\ntime.sleep(60)"


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.abort()",
        "say(Page(b'a')); import os; os._exit(0)",
        "sys.stdout.buffer.write(b'nonsense, and much of it')",
        "sys.stdout.buffer.write(b'\\5\\0\\0\\0hello'); sys.stdout.buffer.flush(); time.sleep(60)",
        f"sys.stdout.buffer.write(({MAX_MESSAGE_BYTES} + 1).to_bytes(4, 'little') + bytes(100))",
        "say(Ready()); time.sleep(60)",
        "[say(Page(b'a')) for _ in range(1000)]; say(Done())",
    ],
)
async def test_bad_process_fails_only_its_pdf(program: str) -> None:
    async with renderer(1, command=[sys.executable, "-c", _SPEAK + program]) as rendering:
        for _ in range(2):
            with pytest.raises(MediaInvalid, match=r"^f: the PDF cannot be rendered"):
                await rendering.render(coloured_pdf(3), 3, "f")
            assert not rendering.idle


async def test_dead_idle_process_is_replaced() -> None:
    async with renderer(1) as rendering:
        await rendering.render(coloured_pdf(1), 1, "f")
        [process] = rendering.idle
        process.process.send_signal(signal.SIGKILL)
        await process.process.wait()
        assert len(await rendering.render(coloured_pdf(1), 1, "f")) == 1


@pytest.mark.parametrize("program", ["raise SystemExit", "print('what?')", "import nothing_of_that_name"])
async def test_broken_renderer_is_a_500(program: str) -> None:
    async with renderer(1, command=[sys.executable, "-c", program]) as rendering:
        with pytest.raises(Internal):
            await rendering.render(coloured_pdf(1), 1, "f")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_failed_fork_is_a_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    body = {"input": {"pdf": base64.b64encode(coloured_pdf(1)).decode()}}
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", refuse)
        for _ in range(3):
            reply = await client.post("/v1/embeddings", json=body)
            assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert "no process can be started to render PDFs" in reply.json()["detail"]
            assert int(reply.headers["retry-after"]) > 0
    assert (await client.post("/v1/embeddings", json=body)).status_code == 200


async def test_cancelling_kills_the_process() -> None:
    async with renderer(1) as rendering:
        await rendering.render(coloured_pdf(1), 1, "f")
        [process] = rendering.idle
        task = asyncio.create_task(rendering.render(endless_pdf(), 1, "f"))
        while rendering.idle:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with hang_guard():
            assert await process.process.wait() == -signal.SIGKILL
        assert len(await rendering.render(coloured_pdf(1), 1, "f")) == 1


async def test_processes_are_limited() -> None:
    async with renderer(2) as rendering:
        assert not rendering.idle
        sizes = await asyncio.gather(*(rendering.render(coloured_pdf(n), 9, "f") for n in range(1, 9)))
        assert [len(pages) for pages in sizes] == list(range(1, 9))
        assert len(rendering.idle) == 2


async def test_process_is_replaced_in_time() -> None:
    async with renderer(1, documents=2) as rendering:
        seen = []
        for _ in range(4):
            await rendering.render(coloured_pdf(1), 1, "f")
            seen.append([process.process.pid for process in rendering.idle])
    assert [len(idle) for idle in seen] == [1, 0, 1, 0]
    assert seen[0] != seen[2]


async def test_process_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_API_KEY", "secret")
    async with renderer(1) as rendering:
        await rendering.render(coloured_pdf(1), 1, "f")
        process = rendering.idle[0].process
        folder = Path(f"/proc/{process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        assert int(status["Uid"].split()[0]) != 0
        opened = sorted(os.readlink(path).partition(":")[0] for path in (folder / "fd").iterdir())
        assert opened == ["/dev/null", "/dev/null", "pipe", "pipe"]
        assert b"secret" not in (folder / "environ").read_bytes()
        assert os.getsid(process.pid) != os.getsid(0)
        soft = {
            line[:26].strip(): line[26:].split()[0] for line in (folder / "limits").read_text().splitlines()
        }
        assert soft["Max address space"] == str(MAX_MEMORY_BYTES)
        assert soft["Max core file size"] == "0"
        assert MAX_CPU_SECONDS <= int(soft["Max cpu time"]) <= MAX_CPU_SECONDS + 60
        assert process.stdin is not None
        process.stdin.close()
        async with hang_guard():
            assert await process.wait() == 0
