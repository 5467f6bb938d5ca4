"""Images and PDFs through the whole router: fetching, rendering, order and errors."""

import asyncio
import base64
import gc
import io
from typing import Any

import httpx
from aiohttp import web
from PIL import Image

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import RunningRouter, eventually, one_worker
from tests.fakes.site import hangs, says, site
from tests.fakes.worker import FakeWorker
from tests.metrics import parse, value
from tests.unit.router.pdfs import COLOURS, coloured_pdf
from triptych.workers.shared import contract

OPEN = {"media_allowed_networks": ["127.0.0.1/32"]}


def png(colour: str = "red", side: int = 28) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def sent_to(worker: FakeWorker) -> list[bytes]:
    return [item.content.data for item in worker.items if isinstance(item.content, contract.Image)]


def refused(reply: httpx.Response) -> tuple[int, str, str]:
    content = reply.json()
    return reply.status_code, content["code"], content["detail"]


async def until_quiet(router: RunningRouter) -> None:
    """Wait until nothing waits, is in flight, fetched or rendered."""
    await router.until_idle()

    def nothing_is_fetched() -> bool:
        # Errors and their tracebacks form cycles that hold connections.
        gc.collect()
        return not router.app.media.fetcher.hosts

    await eventually(nothing_is_fetched)


async def test_duplicate_url_is_fetched_once() -> None:
    async def by_path(request: web.Request) -> web.Response:
        return web.Response(body=png(request.path.strip("/")))

    async with one_worker(**OPEN) as (router, worker), site(by_path) as server:
        wanted = ["red", "blue", "red", "red", "green", "blue"]
        items: list[Any] = [{"image": f"{server.url}/{colour}"} for colour in wanted]
        items[2] = {"url": items[2]["image"]}
        reply = await router.post(input=["a", *items])
        assert reply.status_code == 200
        assert sorted(request.path for request in server.requests) == ["/blue", "/green", "/red"]
        vectors = [tuple(entry["embedding"]) for entry in reply.json()["data"]][1:]
        assert len(set(vectors)) == len(set(zip(vectors, wanted, strict=True))) == 3
        assert set(sent_to(worker)) == {png(colour) for colour in wanted}


async def test_pdf_pages_are_items_in_order() -> None:
    async with one_worker(**OPEN) as (router, worker), site(says(coloured_pdf(3))) as server:
        reply = await router.post(input={"pdf": server.url}, task="retrieval.passage")
        assert reply.status_code == 200
        data = reply.json()["data"]
        assert [entry["index"] for entry in data] == [0, 1, 2]
        assert [Image.open(io.BytesIO(page)).getpixel((9, 9)) for page in sent_to(worker)] == COLOURS[:3]
        # Each vector equals that of its page, sent as an image.
        for page, entry in zip(sent_to(worker), data, strict=True):
            alone = await router.post(input={"image": base64.b64encode(page).decode()})
            assert alone.json()["data"][0]["embedding"] == entry["embedding"]
        await until_quiet(router)


async def test_media_errors_name_the_field() -> None:
    async def by_path(request: web.Request) -> web.Response:
        match request.path:
            case "/page.html":
                return web.Response(text="<html>", content_type="text/html")
            case "/large.png":
                return web.Response(body=png() + bytes(20_000))
            case "/bomb.png":
                return web.Response(body=png()[:16] + b"\x00\x01\x00\x00" * 2 + png()[24:])
        return web.Response(status=404)

    async with (
        one_worker(max_image_bytes=10_000, max_pdf_bytes=5_000, **OPEN) as (router, worker),
        site(by_path) as server,
    ):
        for form, path, status, code in (
            ("image", "missing.png", 400, "INPUT_MEDIA_UNREACHABLE"),
            ("url", "page.html", 400, "INPUT_MEDIA_INVALID"),
            ("image", "bomb.png", 400, "INPUT_MEDIA_INVALID"),
            ("url", "large.png", 413, "INPUT_TOO_LARGE"),
            ("pdf", "page.html", 400, "INPUT_MEDIA_INVALID"),
            ("pdf", "large.png", 413, "INPUT_TOO_LARGE"),
        ):
            media = {form: f"{server.url}/{path}"}
            reply = await router.post(input=media if form == "pdf" else ["a", media, media])
            assert refused(reply)[:2] == (status, code), reply.text
            place = "" if form == "pdf" else " -> 1"
            assert refused(reply)[2].startswith(f"body -> input{place} -> {form}: ")
        assert worker.items == []
        await until_quiet(router)


async def test_pdf_with_too_many_pages_returns_413() -> None:
    async with one_worker(max_pdf_pages=2) as (router, _):
        for pages, status in ((2, 200), (3, 413)):
            reply = await router.post(input={"pdf": base64.b64encode(coloured_pdf(pages)).decode()})
            assert reply.status_code == status
        assert refused(reply)[1] == "INPUT_TOO_LARGE"
        assert refused(reply)[2].startswith("body -> input -> pdf: ")


async def test_media_fetch_can_be_disabled() -> None:
    async with one_worker(media_fetch=False, **OPEN) as (router, _), site(says(png())) as server:
        for value in ({"image": server.url}, {"pdf": server.url}):
            reply = await router.post(input=value)
            assert refused(reply)[:2] == (400, "INPUT_MEDIA_UNREACHABLE")
            assert "base64" in refused(reply)[2]
        assert not server.requests
        assert (await router.post(input={"image": base64.b64encode(png()).decode()})).status_code == 200


async def test_fetched_bytes_are_bounded_per_request() -> None:
    async with (
        one_worker(max_body_bytes=20_000, **OPEN) as (router, _),
        site(says(png() + bytes(6_000))) as server,
    ):
        items = [{"image": f"{server.url}/{number}"} for number in range(4)]
        assert (await router.post(input=items[:3])).status_code == 200
        assert (await router.post(input=items[:1] * 9)).status_code == 200
        assert refused(await router.post(input=items))[:2] == (413, "INPUT_TOO_LARGE")


async def test_failed_fetch_cancels_the_others() -> None:
    async def by_path(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404) if request.path == "/bad" else await hangs(request)

    async with one_worker(**OPEN) as (router, _), site(by_path) as server:
        reply = await router.post(input=[{"image": f"{server.url}/{path}"} for path in ("slow", "bad")])
        assert refused(reply)[:2] == (400, "INPUT_MEDIA_UNREACHABLE")
        assert "input -> 1" in refused(reply)[2]
        async with hang_guard():
            await server.left.wait()
        await until_quiet(router)
        page = parse((await router.client.get("/metrics")).text)
        # The alert on media has these names.
        failed = {"step": "fetch", "outcome": "failed"}
        assert value(page, "triptych_router_media_duration_seconds_count", **failed) == 2


async def test_leaving_client_cancels_its_fetches() -> None:
    async with one_worker(**OPEN) as (router, worker), site(hangs) as server:
        task = asyncio.create_task(router.post(input={"image": server.url}))
        await server.until_requests(1)
        task.cancel()
        async with hang_guard():
            await server.left.wait()
        await until_quiet(router)
        assert worker.items == []


async def test_page_error_names_the_page() -> None:
    async with one_worker() as (router, worker):
        worker.failing_index = 1
        reply = await router.post(input={"pdf": base64.b64encode(coloured_pdf(2)).decode()})
        assert refused(reply)[:2] == (400, "INPUT_MEDIA_INVALID")
        assert refused(reply)[2].startswith("body -> input -> pdf, page 2: ")
