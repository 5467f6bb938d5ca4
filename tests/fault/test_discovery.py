"""Workers that are added and removed while the router serves, by a file or an HTTP source."""

import asyncio
import json
import logging
import os

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.load import OpenLoop
from tests.fakes.router import PATIENT, eventually, workers_setting
from tests.fakes.site import says, site
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.documents import Document, discovering
from triptych.router.pool.discovery import MAX_BYTES, Discovery, Source
from triptych.router.pool.replica import State
from triptych.router.pool.targets import DocumentError


async def test_removed_replica_finishes_its_batch(document: Document) -> None:
    staying, leaving = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    async with (
        fake_workers(staying, leaving),
        discovering(document, staying, leaving, lanes=1, **PATIENT) as router,
    ):
        await router.until_state(leaving, State.READY)
        leaving.mode = "held"
        load = OpenLoop(router)
        await leaving.until_batches(1)
        document.name(staying)
        await eventually(lambda: not router.knows(leaving))
        await load.answered(30)
        assert len(leaving.batches) == 1, "a removed replica got a batch"
        leaving.gate.set()
        assert await load.stop() == {200}
        assert leaving.left == 0
        await router.until_idle()


BROKEN = ["", "[]", "[", '[{"targets": ["127.0.0.1:1"], "labels": {"task": "music"}}]', None]


@pytest.mark.parametrize("text", BROKEN)
async def test_broken_document_is_logged_once_and_ignored(
    document: Document, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    applied: list[object] = []
    discovery = Discovery(Source(str(document.path), None, 1), 1, applied.append)
    document.write("")
    await discovery.look()
    assert "Invalid JSON" in (discovery.trouble or "")
    document.name(FakeWorker(port=1))
    await discovery.look()
    document.remove() if text is None else document.write(text)
    for _ in range(3):
        await discovery.look()
        assert discovery.trouble is not None
    assert len(applied) == 1
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2
    document.name(FakeWorker(port=2))
    await discovery.look()
    assert discovery.trouble is None
    assert len(applied) == 2


async def test_fifo_or_huge_file_is_refused(document: Document) -> None:
    source = Source(str(document.path), None, 1)
    os.mkfifo(document.path)
    with pytest.raises(OSError, match="not a regular file"):
        await asyncio.wait_for(source.read(), GUARD_SECONDS)
    document.remove()
    document.write("")
    os.truncate(document.path, MAX_BYTES + 1)
    with pytest.raises(OSError, match="over 16 MiB"):
        await source.read()


async def test_router_starts_without_its_document(document: Document) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), discovering(document) as router:
        ready = await router.client.get("/ready")
        assert ready.status_code == 503
        assert "No such file" in ready.json()["reason"]
        assert (await router.client.get("/health")).status_code == 503
        assert (await router.ask(["a"])).status_code == 503
        document.name(worker)
        await router.until_state(worker, State.READY)
        assert (await router.client.get("/ready")).json()["reason"] is None
        assert (await router.client.get("/health")).status_code == 200
        assert (await router.ask(["a"])).status_code == 200


def listing(worker: FakeWorker, padding: int = 0) -> bytes:
    return json.dumps(workers_setting([worker])).encode() + b" " * padding


async def test_http_source_may_stop_and_return(caplog: pytest.LogCaptureFixture) -> None:
    old, new = FakeWorker(), FakeWorker()
    async with (
        fake_workers(old, new),
        site(says(listing(old), Content_Type="application/json")) as source,
        discovering(source.url, discovery_token="a secret") as router,
    ):
        await router.until_state(old, State.READY)
        headers = source.requests[0].headers
        assert headers["Authorization"] == "Bearer a secret"
        assert headers["X-Prometheus-Refresh-Interval-Seconds"] == "0.01"
        source.handler = says(b"", 500)
        await eventually(lambda: "cannot be used" in caplog.text)
        assert (await router.ask(["a"])).status_code == 200
        source.handler = says(listing(new), Content_Type="application/json; charset=utf-8")
        await router.until_state(new, State.READY)
        assert not router.knows(old)


@pytest.mark.parametrize(
    ("status", "content_type", "padding", "reason"),
    [
        (500, "application/json", 0, "500"),
        (204, "application/json", 0, "204"),
        (200, "text/plain", 0, "text/plain"),
        (200, "application/json", MAX_BYTES, "16 MiB"),
    ],
)
async def test_invalid_http_sd_reply_is_ignored(
    status: int, content_type: str, padding: int, reason: str
) -> None:
    listed = listing(FakeWorker(port=1), padding)
    async with site(says(listed, status, Content_Type=content_type)) as server:
        source = Source(server.url, None, 1)
        with pytest.raises(DocumentError, match=reason):
            await source.read()
        await source.close()
