"""Completes a plan: fetches what is at addresses and renders PDFs, each thing once for a request."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from router.errors import ClientGone, MediaUnreachable, TimedOut, TooLarge
from router.http import Request
from router.items import Item
from router.media.fetch import Fetcher
from router.media.formats import Media, check_image, check_pdf, image_tokens
from router.media.pdf import PdfRenderer
from router.observe.metrics import Metrics
from router.settings import RouterSettings
from workers.shared.contract import Image


class _Loaded(NamedTuple):
    image: Image
    cost: int


class MediaLoader:
    """Makes items complete. Used as an async context."""

    def __init__(self, settings: RouterSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._fetcher = Fetcher(settings.media_allowed_networks, settings.media_timeout_seconds)
        self._renderer = PdfRenderer(settings.pdf_processes)

    async def __aenter__(self) -> "MediaLoader":
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._fetcher.__aexit__()
        await self._renderer.close()

    async def load(self, request: Request, items: list[Item], seconds: float) -> list[Item]:
        """`items` with all their media, numbered anew: a PDF has become one item for each page.

        Raises `MediaInvalid`, `MediaUnreachable` or `TooLarge`; `TimedOut` after `seconds`; `ClientGone`
        when the client of `request` leaves first. Whatever the end, nothing goes on behind it.
        """
        if all(item.media is None for item in items):
            return items
        task = asyncio.ensure_future(self._load(items))
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        try:
            async with asyncio.timeout(seconds):
                with request.watched(leave):
                    return await task
        except TimeoutError:
            raise TimedOut(f"not done within {seconds:g} seconds") from None
        except asyncio.CancelledError:
            if gone:
                raise ClientGone from None
            raise

    async def _load(self, items: Sequence[Item]) -> list[Item]:
        budget = _Budget(self._settings.max_body_bytes)
        fields: dict[Media, str] = {}
        for item in items:
            if item.media is not None:
                fields.setdefault(item.media, item.field)
        tasks = {
            media: asyncio.ensure_future(self._load_one(media, field, budget))
            for media, field in fields.items()
        }
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

    async def _load_one(self, media: Media, field: str, budget: "_Budget") -> list[_Loaded]:
        settings = self._settings
        is_pdf = media.kind == "pdf"
        data = media.source
        if isinstance(data, str):
            if not settings.media_fetch:
                raise MediaUnreachable(f"{field}: addresses are not fetched from here; send base64")
            limit = settings.max_pdf_bytes if is_pdf else settings.max_image_bytes
            with self._timed("fetch"):
                data = await self._fetcher.fetch(data, limit, field)
            budget.take(len(data), field)
            (check_pdf if is_pdf else check_image)(data, field)
        images = [data]
        if is_pdf:
            with self._timed("render"):
                images = await self._renderer.render(data, settings.max_pdf_pages, field)
        return [_Loaded(Image(image), image_tokens(image)) for image in images]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._metrics.loaded(step, outcome, time.perf_counter() - started)


class _Budget:
    """What may be fetched for one request in all: as much as it might have sent itself."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken = 0

    def take(self, size: int, field: str) -> None:
        self._taken += size
        if self._taken > self._max_bytes:
            raise TooLarge(f"{field}: what was fetched for the request is over {self._max_bytes} bytes")


def _completed(item: Item, loaded: Sequence[_Loaded], index: int) -> list[Item]:
    """The items that `item` becomes, the first of them at `index`; pages are named in their field."""
    is_pdf = item.media is not None and item.media.kind == "pdf"
    return [
        Item(
            item.pool,
            msgspec.structs.replace(item.wire, content=one.image),
            min(one.cost, item.cost),
            index + at,
            f"{item.field}, page {at + 1}" if is_pdf else item.field,
            item.bulk,
        )
        for at, one in enumerate(loaded)
    ]
