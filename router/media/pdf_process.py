"""Process that renders PDFs (`python -m router.media.pdf_process`): jobs on stdin, pages on stdout.

Each message follows its length. pdfium is not thread-safe and parses untrusted files, so it has a process
without files and network (`sandbox.py`). The router imports only the messages.
"""

import io
import math
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from triptych.router.media.formats import MAX_IMAGE_TOKENS, PIXELS_PER_TOKEN
from triptych.router.media.sandbox import confine

LENGTH_BYTES = 4
# More than the pixels of an uncompressed page.
MAX_MESSAGE_BYTES = 4 << 20

# CPU time for one document, in case the router dies and cannot kill the process.
MAX_CPU_SECONDS = 600

# The model resizes larger images to this, so more pixels would be lost. Small pages are rendered at 200 dpi.
MAX_PIXELS = MAX_IMAGE_TOKENS * PIXELS_PER_TOKEN
MAX_PIXELS_PER_POINT = 200 / 72


class Job(msgspec.Struct, frozen=True):
    """A PDF to render."""

    data: bytes
    max_pages: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has started. `lacking` names what the system cannot confine it with."""

    lacking: str = ""


class Page(msgspec.Struct, frozen=True, tag="page"):
    """The next page, as a PNG."""

    data: bytes


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The last page has been sent."""


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The PDF is bad, and why."""

    message: str
    too_many_pages: bool = False


Message = Ready | Page | Done | Fault

decode_message = msgspec.msgpack.Decoder(Message).decode
decode_job = msgspec.msgpack.Decoder(Job).decode


def encode(message: Message | Job) -> bytes:
    """Encode a message, after its length."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def page_size(width: float, height: float) -> tuple[int, int] | None:
    """Size in pixels of a page of `width` by `height` points; None if the size is not valid."""
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

    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Libraries must write neither between the messages nor into the router's log.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # Imports all that rendering needs, while there are files.
    blank = pypdfium2.PdfDocument.new()
    blank.new_page(72, 72)
    _page(pypdfium2, blank, 0)
    lacking = confine()
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    _send(output, Ready(lacking))
    while head := sys.stdin.buffer.read(LENGTH_BYTES):
        job = decode_job(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        seconds = int(used.ru_utime + used.ru_stime) + MAX_CPU_SECONDS
        soft = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        for message in _render(pypdfium2, job):
            _send(output, message)


def _render(pdfium: Any, job: Job) -> Iterator[Message]:
    """The messages for one document. It is always closed."""
    # PDFium keeps the last error, and opening a document without pages fails without setting one. So first
    # provoke FPDF_ERR_FILE, which no document in memory causes. Tested with pypdfium2 5.15.
    pdfium.raw.FPDF_LoadDocument(b"", None)
    try:
        document = pdfium.PdfDocument(job.data)
    except pdfium.PdfiumError as error:
        match error.err_code:
            case pdfium.raw.FPDF_ERR_PASSWORD | pdfium.raw.FPDF_ERR_SECURITY:
                yield Fault("the PDF is encrypted")
            case pdfium.raw.FPDF_ERR_FILE:
                yield Fault("the PDF has no pages")
            case _:
                yield Fault("the PDF is broken")
        return
    try:
        pages = len(document)
        if pages > job.max_pages:
            limit = f"at most {job.max_pages} are allowed"
            yield Fault(f"the PDF has {pages} pages; {limit}", too_many_pages=True)
            return
        document.init_forms()
        for index in range(pages):
            message = _page(pdfium, document, index)
            yield message
            if isinstance(message, Fault):
                return
        yield Done()
    except pdfium.PdfiumError:
        yield Fault("the PDF is broken")
    finally:
        document.close()


def _page(pdfium: Any, document: Any, index: int) -> Page | Fault:
    try:
        page = document[index]
    except pdfium.PdfiumError:
        return Fault(f"page {index + 1} of the PDF is broken")
    try:
        points = page.get_size()
        pixels = page_size(*points)
        if pixels is None:
            return Fault(f"page {index + 1} of the PDF has an invalid size")
        # The library rounds up.
        scale = min((pixels[0] - 0.01) / points[0], (pixels[1] - 0.01) / points[1])
        bitmap = page.render(scale=scale, rev_byteorder=True)
        buffer = io.BytesIO()
        bitmap.to_pil().convert("RGB").save(buffer, "PNG", compress_level=1)
        bitmap.close()
        return Page(buffer.getvalue())
    finally:
        page.close()


def _send(output: BinaryIO, message: Message) -> None:
    output.write(encode(message))
    output.flush()


if __name__ == "__main__":
    main()
