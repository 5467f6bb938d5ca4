"""Renders PDFs in separate processes, since an untrusted PDF may crash or block its renderer."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from triptych.router.errors import Internal, MediaInvalid, TooLarge, Unavailable
from triptych.router.media import pdf_process
from triptych.router.media.pdf_process import Fault, Job, Message, Ready
from triptych.router.memory import Reservation
from triptych.router.slots import FairSlots

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "triptych.router.media.pdf_process")
# Timeouts to start a process, and to open a document or render its next page.
START_SECONDS = 20.0
PAGE_SECONDS = 10.0
# For all pages of a document.
DOCUMENT_SECONDS = 30.0
# Then the process is replaced, so that leaks do not add up.
DOCUMENTS_PER_PROCESS = 200
# Variables for the processes; the router's secrets are left out.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "HOME")


class PdfRenderer:
    """A pool of at most `processes` processes, which start when needed. `idle` are those without a job.

    One client uses at most `per_client` of them, all by default; clients that wait take turns. A process that
    crashes, exceeds a timeout or loses its client is killed.
    """

    def __init__(
        self,
        processes: int,
        per_client: int | None = None,
        page_seconds: float = PAGE_SECONDS,
        document_seconds: float = DOCUMENT_SECONDS,
        command: Sequence[str] = COMMAND,
        documents: int = DOCUMENTS_PER_PROCESS,
    ) -> None:
        self._slots = FairSlots(processes, per_client or processes)
        self._page_seconds = page_seconds
        self._document_seconds = document_seconds
        self._command = tuple(command)
        self._documents = documents
        self.idle: list[PdfProcess] = []
        self._ending: set[asyncio.Task[int]] = set()

    async def render(
        self, data: bytes, max_pages: int, field: str, client: str = "", memory: Reservation | None = None
    ) -> list[bytes]:
        """Each page as a PNG, in order, for `client`; `memory` grows by each.

        Raises `MediaInvalid`, `TooLarge` over `max_pages`, or `Unavailable` if no process can be started; and
        what `Reservation.grow` raises.
        """
        async with self._slots.slot(client):
            process = self._take_idle() or PdfProcess(await self._start())
            sound = False
            try:
                async with asyncio.timeout(self._document_seconds):
                    result = await process.render(Job(data, max_pages), self._page_seconds, memory)
                sound = True
            except TimeoutError:
                limits = f"{self._page_seconds:g} s for a page, {self._document_seconds:g} s for all"
                log.warning("a PDF took too long (%s): process killed", limits)
                raise MediaInvalid(f"{field}: the PDF takes too long to render ({limits})") from None
            except (EOFError, OSError, ValueError) as error:
                log.warning("a PDF of %d bytes crashed its process: %r", len(data), error)
                raise MediaInvalid(f"{field}: the PDF cannot be rendered") from None
            finally:
                if sound and process.documents < self._documents:
                    self.idle.append(process)
                else:
                    self._end(process.process)
        if isinstance(result, Fault):
            kind = TooLarge if result.too_many_pages else MediaInvalid
            raise kind(f"{field}: {result.message}")
        return result

    async def close(self) -> None:
        """Kill all idle processes."""
        for process in self.idle:
            self._end(process.process)
        self.idle.clear()
        await asyncio.gather(*self._ending)

    def _take_idle(self) -> "PdfProcess | None":
        while self.idle:
            process = self.idle.pop()
            if process.process.returncode is None:
                return process
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                # Ctrl-C must not reach it; the router ends it.
                start_new_session=True,
            )
        except OSError as error:
            # The machine is out of processes, memory or file descriptors, probably only for a while.
            log.error("the process that renders PDFs cannot be started: %s", error)
            raise Unavailable("no process can be started to render PDFs") from None
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await receive(process)
                if not isinstance(ready, Ready):
                    raise ValueError("its first message is not Ready")
                if ready.lacking:
                    log.warning("PDFs are rendered with less isolation: no %s here", ready.lacking)
        except BaseException as error:
            self._end(process)
            if isinstance(error, TimeoutError | EOFError | OSError | ValueError):
                log.error("the process that renders PDFs did not start (%s): %r", self._command, error)
                raise Internal("PDFs cannot be rendered here") from None
            raise
        return process

    def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
        task = asyncio.ensure_future(process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class PdfProcess:
    """A process that has started, and the number of documents it was given."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.documents = 0

    async def render(self, job: Job, page_seconds: float, memory: Reservation | None) -> list[bytes] | Fault:
        """The pages, or what is wrong with the document. Raises if the process fails."""
        self.documents += 1
        pages: list[bytes] = []
        assert self.process.stdin is not None
        async with asyncio.timeout(page_seconds) as clock:
            self.process.stdin.write(pdf_process.encode(job))
            await self.process.stdin.drain()
            while True:
                match await receive(self.process):
                    case pdf_process.Page(data) if len(pages) < job.max_pages:
                        if memory is not None:
                            memory.grow(len(data))
                        pages.append(data)
                        clock.reschedule(asyncio.get_running_loop().time() + page_seconds)
                    case pdf_process.Done():
                        return pages
                    case Fault() as fault:
                        return fault
                    case message:
                        raise ValueError(f"unexpected message: {type(message).__name__}")


async def receive(process: asyncio.subprocess.Process) -> Message:
    """The next message of a process."""
    assert process.stdout is not None
    size = int.from_bytes(await process.stdout.readexactly(pdf_process.LENGTH_BYTES), "little")
    if size > pdf_process.MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {size} bytes")
    message: Message = pdf_process.decode_message(await process.stdout.readexactly(size))
    return message
