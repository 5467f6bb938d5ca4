"""PDFs as a test describes them, and a renderer."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.router.media.pdf import PdfRenderer

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
    """A PDF whose pages, of `width` by `height` points, are filled with one colour each."""
    # In PDFs of Pillow, only images with a palette are not compressed as JPEG.
    first, *rest = [Image.new("RGB", (1, 1), COLOURS[page % 4]).quantize() for page in range(count)]
    buffer = io.BytesIO()
    first.save(buffer, "PDF", save_all=True, append_images=rest, dpi=(72 / width, 72 / height))
    return buffer.getvalue()


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
    patient = {"page_seconds": GUARD_SECONDS, "document_seconds": GUARD_SECONDS}
    rendering = PdfRenderer(*arguments, **patient | options)
    try:
        yield rendering
    finally:
        await rendering.close()
        assert not rendering.idle
