"""What a worker counts and traces of its batches, with a service that is a function."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.fakes.collector import attributes, collecting
from tests.fakes.worker import vector_of
from tests.unit.router.test_metrics import parse, value
from tests.unit.workers.services import FakeService
from workers.app import WorkerApp
from workers.encoding import Job
from workers.shared.contract import (
    ENCODE_PATH,
    METRICS_PATH,
    OVERLOADED,
    ROUTER_HEADER,
    STATE_HEADER,
    WAIT_HEADER,
    EncodeRequest,
    Failure,
    Frame,
    Item,
    Text,
    encode_request,
)


class Service(FakeService):
    """Encodes at once, except that a text `bad` is refused, and `wait` waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = asyncio.Event()
        self.gate = asyncio.Event()

    def job(self, index: int, item: Item) -> Job | Failure:
        if item.content == Text("bad", "query"):
            return Failure(index, "token_limit", "too long")
        return super().job(index, item)

    async def encode(self, item: Item) -> Frame:
        if item.content == Text("wait", "query"):
            self.waiting.set()
            await self.gate.wait()
        return await super().encode(item)


@asynccontextmanager
async def client_of(app: WorkerApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        yield client


def batch(*texts: str) -> bytes:
    return encode_request(EncodeRequest([Item(Text(text, "query")) for text in texts]))


async def test_items_and_tokens_are_counted_by_how_they_end() -> None:
    async with client_of(WorkerApp(Service(), 100)) as client:
        reply = await client.post(ENCODE_PATH, content=batch("a", "bad", "more words"))
        assert reply.status_code == 200
        page = parse((await client.get(METRICS_PATH)).text)
    assert value(page, "triptych_worker_items_total", outcome="vector") == 2
    assert value(page, "triptych_worker_items_total", outcome="token_limit") == 1
    good = [Item(Text(text, "query")) for text in ("a", "more words")]
    tokens = sum(vector_of("retrieval", item, 8).tokens for item in good)
    assert value(page, "triptych_worker_tokens_total") == tokens
    assert value(page, "triptych_worker_batch_tokens_sum") == tokens
    assert value(page, "triptych_worker_batch_items_sum") == 3
    assert value(page, "triptych_worker_prepare_duration_seconds_count") == 1
    assert value(page, "triptych_worker_engine_duration_seconds_count") == 2
    assert value(page, "triptych_worker_waiting_items") == 0


async def test_what_waits_and_what_is_refused_can_be_seen() -> None:
    service = Service()
    async with client_of(WorkerApp(service, 2)) as client:
        held = asyncio.create_task(client.post(ENCODE_PATH, content=batch("wait", "b")))
        await service.waiting.wait()
        assert (await client.post(ENCODE_PATH, content=batch("c"))).status_code == 503
        page = parse((await client.get(METRICS_PATH)).text)
        assert value(page, "triptych_worker_waiting_items") == 2
        assert value(page, "triptych_worker_refused_batches_total", reason="overloaded") == 1
        service.gate.set()
        assert (await held).status_code == 200
        page = parse((await client.get(METRICS_PATH)).text)
        assert value(page, "triptych_worker_waiting_items") == 0


async def test_room_in_a_full_worker_is_kept_for_the_router_that_it_refused() -> None:
    service = Service()
    async with client_of(WorkerApp(service, 2)) as client:

        async def ask(router: str, *texts: str) -> httpx.Response:
            return await client.post(ENCODE_PATH, content=batch(*texts), headers={ROUTER_HEADER: router})

        held = asyncio.create_task(ask("one", "wait", "b"))
        await service.waiting.wait()
        refused = await ask("other", "c", "d")
        assert (refused.status_code, refused.headers[STATE_HEADER]) == (503, OVERLOADED)
        assert float(refused.headers[WAIT_HEADER]) > 0
        service.gate.set()
        await held
        service.gate.clear()
        service.waiting.clear()
        held = asyncio.create_task(ask("one", "wait"))
        await service.waiting.wait()
        assert (await ask("one", "e")).status_code == 503
        assert (await ask("other", "c")).status_code == 200
        service.gate.set()
        assert (await held).status_code == 200


async def test_its_span_is_a_child_of_the_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, parent = "a" * 32, "b" * 16
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        app = WorkerApp(Service(), 100)
        async with client_of(app) as client:
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            await client.post(ENCODE_PATH, content=batch("a"), headers=headers)
        await app.close()
        [span] = collector.named("encode")
    assert collector.services == {"triptych-worker"}
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert attributes(span)["triptych.pool"] == "retrieval"
