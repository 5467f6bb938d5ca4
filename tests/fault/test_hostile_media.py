"""Media that would block others: hostile files, and keys that want all fetches or all renderers."""

import asyncio
import base64
import hashlib
from contextlib import AsyncExitStack
from typing import Any

import httpx

from tests.fakes.router import RunningRouter, eventually, one_worker
from tests.fakes.site import hangs, says, site
from tests.fault.test_leaving_clients import leave
from tests.fault.test_media import png
from tests.unit.router.pdfs import coloured_pdf, endless_pdf
from triptych.router.media.fetch import MAX_FETCHES, MAX_FETCHES_PER_CLIENT, MAX_FETCHES_PER_HOST

KEYS = {
    name: {"authorization": f"Bearer triptych_{name}", "x-request-timeout-seconds": "60"}
    for name in ("greedy", "other")
}
GUARDED: dict[str, Any] = {
    "api_keys": [
        {"name": name, "sha256": hashlib.sha256(headers["authorization"][7:].encode()).hexdigest()}
        for name, headers in KEYS.items()
    ],
    "media_allowed_networks": ["127.0.0.0/8"],
}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def post(router: RunningRouter, key: str, **body: Any) -> httpx.Response:
    return await router.post(headers=KEYS[key], **body)


async def test_key_cannot_hold_all_renderers() -> None:
    async with one_worker(pdf_processes=2, pdf_timeout_seconds=600.0, **GUARDED) as (router, _):
        greedy = [
            asyncio.create_task(post(router, "greedy", input={"pdf": encoded(endless_pdf())}))
            for _ in range(4)
        ]
        for _ in range(2):
            reply = await post(router, "other", input={"pdf": encoded(coloured_pdf(2))})
            assert reply.status_code == 200
            assert len(reply.json()["data"]) == 2
        assert not any(task.done() for task in greedy)
        await leave(*greedy)


async def test_key_cannot_hold_all_fetches() -> None:
    async with one_worker(media_timeout_seconds=600.0, **GUARDED) as (router, _), AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(site(hangs, f"127.0.1.{number}"))
            for number in range(1, MAX_FETCHES // MAX_FETCHES_PER_HOST + 1)
        ]
        quick = await stack.enter_async_context(site(says(png())))
        urls = [f"{host.url}/{number}" for host in hosts for number in range(MAX_FETCHES_PER_HOST)]
        greedy = asyncio.create_task(post(router, "greedy", input=[{"image": url} for url in urls]))
        await eventually(lambda: sum(len(host.requests) for host in hosts) >= MAX_FETCHES_PER_CLIENT)
        assert (await post(router, "other", input={"image": quick.url})).status_code == 200
        assert not greedy.done()
        await leave(greedy)
