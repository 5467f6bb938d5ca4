"""Workers that are added and removed while the router serves, by a file or an HTTP source."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web

from tests.fakes.load import OpenLoop
from tests.fakes.router import eventually, workers_setting
from tests.fakes.worker import FakeWorker, fake_workers
from tests.fault.documents import Document, discovering
from triptych.router.pool.discovery import MAX_BYTES, Discovery, source_of
from triptych.router.pool.replica import State


async def test_removed_replica_finishes_its_batch(document: Document) -> None:
    staying, leaving = FakeWorker(dimensions=64), FakeWorker(dimensions=64)
    async with fake_workers(staying, leaving), discovering(document, staying, leaving, lanes=1) as router:
        await router.until_state(leaving, State.READY)
        leaving.mode = "held"
        load = OpenLoop(router)
        await leaving.until_batches(1)
        document.name(staying)
        await eventually(lambda: not router.knows(leaving))
        await load.answered(30)
        assert len(leaving.batches) == 1, "a removed replica got a batch"
        leaving.gate.set()
        assert set(await load.stop()) == {"ok"}
        assert leaving.left == 0
        await router.until_idle()
        probers = [task for task in asyncio.all_tasks() if "Prober.run" in repr(task)]
        assert len(probers) == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_replacing_all_replicas_causes_no_errors(document: Document, at_once: bool) -> None:
    old, new = ([FakeWorker(dimensions=64) for _ in range(3)] for _ in range(2))
    async with fake_workers(*old, *new), discovering(document, *old) as router:
        load = OpenLoop(router, 4)
        await load.answered(20)
        for replaced in (3,) if at_once else (1, 2, 3):
            document.name(*old[replaced:], *new[:replaced])
            for worker in new[:replaced]:
                await router.until_state(worker, State.READY)
            await load.answered(20)
        assert not any(router.knows(worker) for worker in old)
        assert set(await load.stop()) == {"ok"}
        await router.until_idle()


async def test_address_moves_to_another_pool(document: Document) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), discovering(document, worker) as router:
        await router.until_state(worker, State.READY)
        worker.info = FakeWorker("code", port=worker.port).info
        document.name(worker)
        await eventually(lambda: list(router.fleet.pools) == ["code"])
        await router.until_state(worker, State.READY)
        assert (await router.post(input=["a"], task="code.query")).status_code == 200


BROKEN = ["", "[]", "[", '[{"targets": ["127.0.0.1:1"], "labels": {"task": "music"}}]', None]


@pytest.mark.parametrize("text", BROKEN)
async def test_broken_document_is_logged_once_and_ignored(
    document: Document, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    applied: list[object] = []
    discovery = Discovery(source_of(str(document.path), None, 1), "the document", 1, applied.append)
    document.name(FakeWorker(port=1))
    await discovery.look()
    document.remove() if text is None else document.write(text)
    for _ in range(3):
        await discovery.look()
        assert discovery.trouble is not None
    assert len(applied) == 1
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    document.name(FakeWorker(port=2))
    await discovery.look()
    assert discovery.trouble is None
    assert len(applied) == 2


async def test_router_starts_without_its_document(document: Document) -> None:
    worker = FakeWorker()
    async with fake_workers(worker), discovering(document) as router:
        ready = await router.client.get("/ready")
        assert ready.status_code == 503
        assert "No such file" in ready.json()["reason"]
        assert (await router.ask(["a"])).status_code == 503
        document.name(worker)
        await router.until_state(worker, State.READY)
        assert (await router.client.get("/ready")).json()["reason"] is None
        assert (await router.ask(["a"])).status_code == 200


class Source:
    """An HTTP server of the document, with a chosen status and content type, and `padding` in bytes."""

    def __init__(self) -> None:
        self.workers: Sequence[FakeWorker] = ()
        self.status = 200
        self.content_type = "application/json"
        self.padding = 0
        self.seen: dict[str, str] = {}
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/workers"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/workers", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen = dict(request.headers)
        return web.Response(
            body=json.dumps(workers_setting(self.workers)).encode() + b" " * self.padding,
            status=self.status,
            headers={"Content-Type": self.content_type},
        )


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    await source.start()
    yield source
    await source.stop()


async def test_http_source_may_stop_and_return(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    old, new = FakeWorker(), FakeWorker()
    source.workers = [old]
    async with (
        fake_workers(old, new),
        discovering(source.url, discovery_token="a secret") as router,
    ):
        await router.until_state(old, State.READY)
        assert source.seen["Authorization"] == "Bearer a secret"
        assert source.seen["X-Prometheus-Refresh-Interval-Seconds"] == "0.01"
        await source.stop()
        await eventually(lambda: "cannot be used" in caplog.text)
        assert (await router.ask(["a"])).status_code == 200
        source.workers = [new]
        await source.start()
        await router.until_state(new, State.READY)
        assert not router.knows(old)


@pytest.mark.parametrize(
    ("status", "content_type", "padding", "says"),
    [
        (500, "application/json", 0, "500"),
        (204, "application/json", 0, "204"),
        (200, "text/plain", 0, "text/plain"),
        (200, "application/json", MAX_BYTES, "16 MiB"),
    ],
)
async def test_invalid_http_sd_reply_is_ignored(
    source: Source, status: int, content_type: str, padding: int, says: str
) -> None:
    worker = FakeWorker()
    source.workers, source.status = [worker], status
    source.content_type, source.padding = content_type, padding
    async with fake_workers(worker), discovering(source.url) as router:
        ready = (await router.client.get("/ready")).json()
        assert says in ready["reason"]
        source.status, source.content_type, source.padding = 200, "application/json; charset=utf-8", 0
        await router.until_state(worker, State.READY)
