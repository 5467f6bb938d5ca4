"""PDFs: pages in order and size, errors, and processes that crash or block."""

import asyncio
import base64
import errno
import io
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fakes.hang_guard import hang_guard
from triptych.router.errors import Internal, MediaInvalid, TooLarge
from triptych.router.media import pdf
from triptych.router.media.pdf import PdfRenderer
from triptych.router.media.pdf_process import (
    MAX_CPU_SECONDS,
    MAX_MESSAGE_BYTES,
    MAX_PIXELS,
    Message,
    page_size,
)
from triptych.router.media.sandbox import MAX_MEMORY_BYTES
from triptych.router.memory import Budget, Reservation

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def write_pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of `objects`, of which the first is the catalogue."""
    data = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    end = b"trailer <</Size %d /Root 1 0 R %s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n%s%s" % (size, table, end)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d %s>>\nstream\n%s\nendstream" % (len(content), entries, content)


def coloured_pdf(count: int, width: float = 595, height: float = 842) -> bytes:
    """A PDF whose pages are filled with one colour each."""
    kids = b" ".join(b"%d 0 R" % (3 + 2 * page) for page in range(count))
    objects = [b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Count %d /Kids [%s]>>" % (count, kids)]
    for page in range(count):
        red, green, blue = (value // 255 for value in COLOURS[page % len(COLOURS)])
        box = b"/MediaBox [0 0 %f %f]" % (width, height)
        objects.append(b"<</Type /Page /Parent 2 0 R %s /Contents %d 0 R>>" % (box, 4 + 2 * page))
        objects.append(stream(b"%d %d %d rg 0 0 %f %f re f" % (red, green, blue, width, height)))
    return write_pdf(*objects)


def endless_pdf() -> bytes:
    """A few kilobytes that take very long to draw: forms that draw each other many times."""
    objects = [
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
        b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
        b" /Resources <</XObject <</F 5 0 R>>>>>>",
        stream(b"/F Do"),
    ]
    depth = 12
    for level in range(depth):
        resources = b"/Resources <</XObject <</F %d 0 R>>>>" % (6 + level) if level < depth - 1 else b""
        content = b"/F Do " * 30 if level < depth - 1 else b"0 0 600 800 re f 1 0 0 rg"
        objects.append(stream(content, b"/Type /XObject /Subtype /Form /BBox [0 0 600 800] " + resources))
    return write_pdf(*objects)


@asynccontextmanager
async def renderer(*arguments: Any, **options: Any) -> AsyncIterator[PdfRenderer]:
    rendering = PdfRenderer(*arguments, **options)
    try:
        yield rendering
    finally:
        await rendering.close()
        assert not rendering.idle


def opened(page: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(page))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


async def test_pages_become_images_in_order() -> None:
    async with renderer(1) as rendering:
        pages = [opened(page) for page in await rendering.render(coloured_pdf(4), 4, "f")]
    middles = [page.getpixel((page.width // 2, page.height // 2)) for page in pages]
    assert middles == COLOURS
    for page in pages:
        # The edges would be white if the page were smaller than its image.
        assert page.getpixel((page.width - 1, page.height - 1)) == page.getpixel((0, 0))


@pytest.mark.parametrize(
    ("points", "pixels"),
    [
        # As much as the model looks at, and no more.
        ((595, 842), (652, 923)),
        ((842, 595), (923, 652)),
        ((14_400, 14_400), (775, 775)),
        # Small pages at 200 dots an inch.
        ((72, 72), (200, 200)),
        ((144, 72), (400, 200)),
    ],
)
async def test_page_size_suits_the_model(points: tuple[int, int], pixels: tuple[int, int]) -> None:
    async with renderer(1) as rendering:
        [page] = await rendering.render(coloured_pdf(1, *points), 1, "f")
    width, height = opened(page).size
    assert width * height <= MAX_PIXELS
    assert (width, height) == pytest.approx(pixels, abs=1)


@pytest.mark.parametrize("points", [(0, 5), (-1, -1), (float("nan"), 5), (float("inf"), 5), (1e-9, 1e9)])
def test_invalid_page_size_is_refused(points: tuple[float, float]) -> None:
    assert page_size(*points) is None


ENCRYPTED = write_pdf(
    b"<</Type /Catalog /Pages 2 0 R>>",
    b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
    b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 100 100]>>",
    b"<</Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s>>>" % (b"ab" * 32, b"cd" * 32),
    trailer=b"/Encrypt 4 0 R /ID [<00> <00>]",
)
NO_PAGES = write_pdf(b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Count 0 /Kids []>>")


BROKEN = b"%PDF-1.7\nand then nothing of the kind"
FAULTS = {ENCRYPTED: "the PDF is encrypted", NO_PAGES: "the PDF has no pages", BROKEN: "the PDF is broken"}


@pytest.mark.parametrize("order", [*permutations(FAULTS)], ids=lambda order: "")
async def test_each_document_has_its_own_error(order: tuple[bytes, ...]) -> None:
    async with renderer(1) as rendering:
        for data in (*order, order[0]):
            with pytest.raises(MediaInvalid) as caught:
                await rendering.render(data, 10, "f")
            assert caught.value.detail == f"f: {FAULTS[data]}"
        [process] = rendering.idle
        assert process.documents == len(order) + 1
        assert len(await rendering.render(coloured_pdf(2), 2, "f")) == 2
        assert rendering.idle == [process]


async def test_page_limit_is_exact() -> None:
    async with renderer(1) as rendering:
        assert len(await rendering.render(coloured_pdf(3), 3, "f")) == 3
        with pytest.raises(TooLarge, match=r"^f: .* 4 pages; at most 3"):
            await rendering.render(coloured_pdf(4), 3, "f")


async def test_slow_page_kills_its_process() -> None:
    async with renderer(1, page_seconds=1) as rendering:
        with pytest.raises(MediaInvalid, match=r"^f: .*too long"):
            await rendering.render(endless_pdf(), 1, "f")
        assert not rendering.idle
        assert len(await rendering.render(coloured_pdf(1), 1, "f")) == 1


async def test_each_page_is_counted() -> None:
    memory = Reservation(Budget(50_000))
    async with renderer(1) as rendering:
        with pytest.raises(TooLarge, match="memory"):
            await rendering.render(coloured_pdf(100), 100, "f", memory=memory)
        assert 40_000 < memory.held <= 50_000
        memory.release()
        [page] = await rendering.render(coloured_pdf(1), 1, "f", memory=memory)
        assert memory.held == len(page)


async def test_timeouts_of_page_and_document(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    clock, receive = loop.time, pdf.receive
    passed = 0.0

    async def slowly(process: asyncio.subprocess.Process) -> Message:
        nonlocal passed
        message = await receive(process)
        passed += 6
        # Timers that are due run within the next two iterations of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        return message

    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    monkeypatch.setattr(pdf, "receive", slowly)
    command = [sys.executable, "-c", PAGES]
    async with renderer(1, page_seconds=10, document_seconds=60, command=command) as rendering:
        assert await rendering.render(b"", 4, "f") == [b"page"] * 4
    async with renderer(1, page_seconds=10, document_seconds=15, command=command) as rendering:
        with pytest.raises(MediaInvalid, match=r"^f: .*too long.* 15 s for all"):
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


async def test_memory_bomb_fails_only_its_pdf() -> None:
    """An image of 60,000 by 60,000 pixels in a few kilobytes: 10 GB of them."""
    side = 60_000
    packed = zlib.compress(bytes(50 << 20), 9)
    picture = stream(
        packed,
        b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 8 /ColorSpace /DeviceRGB"
        b" /Filter /FlateDecode" % (side, side),
    )
    bomb = write_pdf(
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
        b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
        b" /Resources <</XObject <</I 5 0 R>>>>>>",
        stream(b"600 0 0 800 0 0 cm /I Do"),
        picture,
    )
    async with renderer(1) as rendering:
        try:
            [page] = await rendering.render(bomb, 1, "f")
        except MediaInvalid:
            pass
        else:
            assert opened(page).width * opened(page).height <= MAX_PIXELS
        assert len(await rendering.render(coloured_pdf(1), 1, "f")) == 1


def test_pixels_grow_with_page_size() -> None:
    sizes = [page_size(side, side * 1.4) for side in range(1, 2000, 7)]
    areas = [width * height for width, height in filter(None, sizes)]
    assert len(areas) == len(sizes)
    assert all(small <= large + 2000 for small, large in pairwise(areas))
    assert max(areas) <= MAX_PIXELS
