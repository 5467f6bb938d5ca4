"""Process that renders PDFs (`python -m router.media.pdf_process`): jobs on stdin, pages on stdout.

Each message is preceded by its length. pdfium is not thread-safe and parses untrusted files, so it runs in a
process of its own with bounded memory and time. The router imports only the messages.
"""

import io
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec

from router.media.formats import MAX_IMAGE_TOKENS, PIXELS_PER_TOKEN

LENGTH_BYTES = 4
# More than the pixels of a page take up uncompressed.
MAX_MESSAGE_BYTES = 4 << 20

MAX_MEMORY_BYTES = 2 << 30
# Processor time for one document, should nobody be left to end it.
MAX_CPU_SECONDS = 600

# The model makes its images smaller than this, so more would only be lost; and a page smaller than that
# is rendered as a printer would, because more would be made up.
MAX_PIXELS = MAX_IMAGE_TOKENS * PIXELS_PER_TOKEN
MAX_PIXELS_PER_POINT = 200 / 72


class Job(msgspec.Struct, frozen=True):
    """A PDF to render."""

    data: bytes
    max_pages: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has started."""


class Page(msgspec.Struct, frozen=True, tag="page"):
    """The next page, as a PNG."""

    data: bytes


class Done(msgspec.Struct, frozen=True, tag="done"):
    """That was the last page."""


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """What is wrong with the PDF."""

    message: str
    too_many_pages: bool = False


Message = Ready | Page | Done | Fault

decode_message = msgspec.msgpack.Decoder(Message).decode
decode_job = msgspec.msgpack.Decoder(Job).decode


def encode(message: Message | Job) -> bytes:
    """A message with its length in front."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def page_size(width: float, height: float) -> tuple[int, int] | None:
    """Pixels for a page of `width` by `height` points; None for what is no page."""
    area = width * height
    if not (math.isfinite(area) and width > 0 and height > 0 and area > 0):
        return None
    scale = min(MAX_PIXELS_PER_POINT, math.sqrt(MAX_PIXELS / area))
    pixels = max(1, int(width * scale)), max(1, int(height * scale))
    return pixels if pixels[0] * pixels[1] <= MAX_PIXELS else None


def main() -> None:
    """Serve jobs until stdin ends."""
    import pypdfium2
    import pypdfium2.raw

    _bound(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _bound(resource.RLIMIT_CORE, 0)
    # Whatever a library prints must not come between the messages.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _send(output, Ready())
    while head := sys.stdin.buffer.read(LENGTH_BYTES):
        job = decode_job(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        used = resource.getrusage(resource.RUSAGE_SELF)
        _bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + MAX_CPU_SECONDS)
        for message in _render(pypdfium2, job):
            _send(output, message)


def _render(pdfium: Any, job: Job) -> Iterator[Message]:
    """The messages for one document, closed in good order whatever happens."""
    # PDFium keeps the last error, and a document without pages sets none. First provoke FPDF_ERR_FILE, which
    # no document in memory causes. Tested with pypdfium2 5.15.
    pdfium.raw.FPDF_LoadDocument(b"", None)
    try:
        document = pdfium.PdfDocument(job.data)
    except pdfium.PdfiumError as error:
        match error.err_code:
            case pdfium.raw.FPDF_ERR_PASSWORD | pdfium.raw.FPDF_ERR_SECURITY:
                yield Fault("the PDF is encrypted")
            case pdfium.raw.FPDF_ERR_FILE:
                # A document without pages is not opened, and has no error of its own.
                yield Fault("the PDF has no pages")
            case _:
                yield Fault("the PDF is broken")
        return
    try:
        pages = len(document)
        if pages > job.max_pages:
            yield Fault(f"the PDF has {pages} pages; at most {job.max_pages} are taken", too_many_pages=True)
        else:
            document.init_forms()
            for index in range(pages):
                yield _page(pdfium, document, index)
            yield Done()
    except (pdfium.PdfiumError, _NoPage) as error:
        yield Fault(str(error) if isinstance(error, _NoPage) else "the PDF is broken")
    finally:
        document.close()


def _page(pdfium: Any, document: Any, index: int) -> Page:
    try:
        page = document[index]
    except pdfium.PdfiumError:
        raise _NoPage(f"page {index + 1} of the PDF is broken") from None
    try:
        points = page.get_size()
        pixels = page_size(*points)
        if pixels is None:
            raise _NoPage(f"page {index + 1} of the PDF has no size that can be rendered")
        # The library rounds up, so the next smaller scale is asked for.
        scale = min((pixels[0] - 0.01) / points[0], (pixels[1] - 0.01) / points[1])
        bitmap = page.render(scale=scale, rev_byteorder=True)
        buffer = io.BytesIO()
        bitmap.to_pil().convert("RGB").save(buffer, "PNG", compress_level=1)
        bitmap.close()
        return Page(buffer.getvalue())
    finally:
        page.close()


class _NoPage(Exception):
    """A page that cannot be rendered."""


def _bound(kind: int, limit: int) -> None:
    """Lower a limit of this process, where the system has it."""
    _, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _send(output: BinaryIO, message: Message) -> None:
    output.write(encode(message))
    output.flush()


if __name__ == "__main__":
    main()
