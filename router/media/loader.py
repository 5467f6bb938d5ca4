"""Loads the media of a request: fetches URLs and renders PDFs, each one once."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from triptych.router.errors import ClientGone, MediaUnreachable, TooLarge
from triptych.router.http import Request
from triptych.router.items import Item
from triptych.router.media.fetch import Fetcher
from triptych.router.media.formats import Media, check_image, check_pdf
from triptych.router.media.pdf import PdfRenderer
from triptych.router.observe.metrics import Metrics
from triptych.router.settings import RouterSettings
from triptych.workers.shared.contract import Image

_Loaded = tuple[Image, int]
"""An image and its cost in tokens."""


class MediaLoader:
    """Loads media into items. Used as an async context."""

    def __init__(self, settings: RouterSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.fetcher = Fetcher(settings.media_allowed_networks, settings.media_timeout_seconds)
        # One process is left for the other keys.
        per_key = max(1, settings.pdf_processes - settings.guarded)
        self._renderer = PdfRenderer(
            settings.pdf_processes, per_key, document_seconds=settings.pdf_timeout_seconds
        )

    async def __aenter__(self) -> "MediaLoader":
        await self.fetcher.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fetcher.__aexit__()
        await self._renderer.close()

    async def load(self, request: Request, items: list[Item]) -> list[Item]:
        """Items with their media loaded, and new indexes: a PDF becomes one item for each page.

        Raises `MediaInvalid`, `MediaUnreachable` or `TooLarge`; `ClientGone` when the client of `request`
        leaves first. However it ends, nothing goes on in the background.
        """
        if all(item.media is None for item in items):
            return items
        task = asyncio.ensure_future(self._load(items, request))
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        try:
            with request.watched(leave):
                return await task
        except asyncio.CancelledError:
            if gone:
                raise ClientGone from None
            raise

    async def _load(self, items: Sequence[Item], request: Request) -> list[Item]:
        fetched: list[int] = []
        tasks: dict[Media, asyncio.Task[list[_Loaded]]] = {}
        for item in items:
            if item.media is not None and item.media not in tasks:
                loading = self._load_one(item.media, item.field, fetched, request)
                tasks[item.media] = asyncio.create_task(loading)
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        complete: list[Item] = []
        for item in items:
            if item.media is None:
                item.index = len(complete)
                complete.append(item)
            else:
                complete += _completed(item, tasks[item.media].result(), len(complete))
        return complete

    async def _load_one(
        self, media: Media, field: str, fetched: list[int], request: Request
    ) -> list[_Loaded]:
        """The image of `media`, or its pages. `fetched` has the sizes of the request's fetched files."""
        settings = self._settings
        is_pdf = media.kind == "pdf"
        data = media.source
        if isinstance(data, str):
            if not settings.media_fetch:
                raise MediaUnreachable(f"{field}: fetching URLs is turned off; send base64")
            limit = settings.max_pdf_bytes if is_pdf else settings.max_image_bytes
            with self._timed("fetch"):
                data = await self.fetcher.fetch(data, limit, field, request.key, request.memory)
            fetched.append(len(data))
            most = settings.max_body_bytes
            if sum(fetched) > most:
                raise TooLarge(f"{field}: the files fetched for the request have more than {most} bytes")
        images = [data]
        if is_pdf:
            check_pdf(data, field)
            with self._timed("render"):
                images = await self._renderer.render(
                    data, settings.max_pdf_pages, field, request.key, request.memory
                )
        return [(Image(image), check_image(image, field)) for image in images]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._metrics.media.labels(step, outcome).observe(time.perf_counter() - started)


def _completed(item: Item, loaded: Sequence[_Loaded], index: int) -> list[Item]:
    """The items that replace `item`, from `index` on. The field of a page names its number."""
    is_pdf = item.media is not None and item.media.kind == "pdf"
    return [
        Item(
            item.pool,
            msgspec.structs.replace(item.wire, content=image),
            min(cost, item.cost),
            index + at,
            f"{item.field}, page {at + 1}" if is_pdf else item.field,
            item.priority,
        )
        for at, (image, cost) in enumerate(loaded)
    ]
