"""The worker's endpoints, with a service without an engine."""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from tests.fakes.collector import attributes, collecting
from tests.fakes.frames import vector_of
from tests.fakes.hang_guard import hang_guard
from tests.unit.workers.services import FakeService, batch, client_of, metric
from triptych.workers.asgi import WorkerApp
from triptych.workers.encoding import encode_batch
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared import contract
from triptych.workers.shared.contract import EncodeRequest, FrameReader, Item, Text, Vector

TOKEN = "a-token-that-no-output-may-hold"


async def test_items_and_tokens_are_counted() -> None:
    async with client_of(WorkerApp(FakeService(), 100)) as client:
        reply = await client.post(contract.ENCODE_PATH, content=batch("a", "bad", "more words"))
        assert reply.status_code == 200
        assert await metric(client, "items_total", outcome="vector") == 2
        assert await metric(client, "items_total", outcome="token_limit") == 1
        good = [Item(Text(text, "query")) for text in ("a", "more words")]
        tokens = sum(vector_of("retrieval", item, 8).tokens for item in good)
        assert await metric(client, "tokens_total") == tokens
        assert await metric(client, "batch_tokens_sum") == tokens
        assert await metric(client, "batch_items_sum") == 3
        assert await metric(client, "prepare_duration_seconds_count") == 1
        assert await metric(client, "engine_duration_seconds_count") == 2
        assert await metric(client, "waiting_items") == 0


@pytest.mark.parametrize(("body", "status"), [(batch(), 200), (b"\xc1 nonsense", 400)])
async def test_body_without_items(body: bytes, status: int) -> None:
    async with client_of(WorkerApp(FakeService(), 100)) as client:
        reply = await client.post(contract.ENCODE_PATH, content=body)
        assert reply.status_code == status
        assert bool(reply.content) == (status != 200)


async def test_busy_worker_is_ready_and_counts() -> None:
    service = FakeService()
    service.gate.clear()
    async with client_of(WorkerApp(service, 2)) as client:
        held = asyncio.create_task(client.post(contract.ENCODE_PATH, content=batch("a", "b")))
        await service.waiting.wait()
        assert (await client.get(contract.READY_PATH)).status_code == 200
        assert (await client.post(contract.ENCODE_PATH, content=batch("c"))).status_code == 503
        assert await metric(client, "waiting_items") == 2
        assert await metric(client, "refused_batches_total", reason="overloaded") == 1
        service.gate.set()
        assert (await held).status_code == 200
        assert await metric(client, "waiting_items") == 0


async def test_room_is_reserved_for_refused_router() -> None:
    service = FakeService()
    async with client_of(WorkerApp(service, 2)) as client:

        async def ask(router: str, *texts: str) -> httpx.Response:
            return await client.post(
                contract.ENCODE_PATH, content=batch(*texts), headers={contract.ROUTER_HEADER: router}
            )

        async def held(*texts: str) -> asyncio.Task[httpx.Response]:
            service.gate.clear()
            service.waiting.clear()
            task = asyncio.create_task(ask("one", *texts))
            await service.waiting.wait()
            return task

        first = await held("a", "b")
        refused = await ask("other", "c", "d")
        assert (refused.status_code, refused.headers[contract.STATE_HEADER]) == (503, contract.OVERLOADED)
        assert float(refused.headers[contract.WAIT_HEADER]) > 0
        service.gate.set()
        await first
        second = await held("a")
        assert (await ask("one", "e")).status_code == 503
        other = asyncio.create_task(ask("other", "c"))
        service.gate.set()
        assert (await other).status_code == (await second).status_code == 200


async def test_span_is_child_of_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, parent = "a" * 32, "b" * 16
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        app = WorkerApp(FakeService(), 100)
        async with client_of(app) as client:
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            await client.post(contract.ENCODE_PATH, content=batch("a"), headers=headers)
        await app.close()
        [span] = collector.named("encode")
    assert collector.services == {"triptych-worker"}
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert attributes(span)["triptych.pool"] == "retrieval"


async def test_progress_follows_engine_steps() -> None:
    service = FakeService()
    service.gate.clear()
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    metrics = WorkerApp(service, 100).metrics
    request = EncodeRequest([Item(Text("long", "query"))])

    async def read() -> None:
        async for data, _ in encode_batch(service, request, metrics, lambda: None, progress_seconds=0.01):
            sent.put_nowait(data)

    reading = asyncio.create_task(read())
    await service.waiting.wait()
    reader = FrameReader()
    for _ in range(2):
        service.engine.steps += 1
        async with hang_guard():
            assert list(reader.feed(await sent.get())) == []
    service.gate.set()
    await reading
    [frame] = reader.feed(sent.get_nowait())
    assert isinstance(frame, Vector)
    assert sent.empty()


class DyingService(FakeService):
    """Its engine dies with the third item, if `late` only after a part of the reply was sent."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.fails_after, self.dies = 2, True
        self.replied = asyncio.Event()
        if not late:
            self.replied.set()

    async def encode(self, item: Item) -> Vector:
        if item.content == Text("lost", "query"):
            await self.replied.wait()
        return await super().encode(item)


async def sent(
    app: WorkerApp, body: bytes, replied: asyncio.Event | None = None
) -> list[MutableMapping[str, Any]]:
    """The ASGI messages of a reply, which may end early. Sets `replied` after the first body."""
    messages: list[MutableMapping[str, Any]] = []
    received = iter([{"type": "http.request", "body": body}])

    async def receive() -> dict[str, Any]:
        for message in received:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)
        if replied is not None and message["type"] == "http.response.body":
            replied.set()

    async with hang_guard():
        await app(
            {"type": "http", "method": "POST", "path": contract.ENCODE_PATH, "headers": []}, receive, send
        )
    return messages


@pytest.mark.parametrize("late", [False, True])
async def test_reply_is_cut_when_engine_dies(late: bool, caplog: pytest.LogCaptureFixture) -> None:
    service = DyingService(late)
    app = WorkerApp(service, 100)
    with caplog.at_level(logging.ERROR):
        start, *bodies = await sent(app, batch(*"ab", *["lost"] * 50), service.replied)
    assert start["status"] == 200
    frames = list(FrameReader().feed(b"".join(body["body"] for body in bodies)))
    assert [type(frame) for frame in frames] == [Vector, Vector]
    assert all(body["more_body"] for body in bodies)
    assert len(caplog.records) == 1
    async with client_of(app) as client:
        assert await metric(client, "items_total", outcome="abandoned") == 50


async def test_engine_death_before_first_frame_is_500() -> None:
    service = FakeService()
    service.fails_after, service.dies = 0, True
    app = WorkerApp(service, 100)
    start, _ = await sent(app, batch("a", "b"))
    assert start["status"] == 500
    assert (contract.STATE_HEADER.encode(), contract.DEAD.encode()) in start["headers"]
    async with client_of(app) as client:
        reply = await client.post(contract.ENCODE_PATH, content=batch("a"))
        assert (reply.status_code, reply.headers[contract.STATE_HEADER]) == (503, contract.DRAINING)
        assert (await client.get(contract.LIVE_PATH)).status_code == 503


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
@pytest.mark.parametrize(
    "path",
    [contract.ENCODE_PATH, contract.INFO_PATH, contract.READY_PATH, contract.METRICS_PATH, "/", "/nowhere"],
)
async def test_missing_or_wrong_token_is_401(path: str, header: str | None) -> None:
    async with client_of(WorkerApp(FakeService(), 8, SecretStr(TOKEN))) as client:
        for method in ("GET", "POST"):
            reply = await client.request(method, path, headers={"Authorization": header} if header else {})
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in reply.text


@pytest.mark.parametrize(
    "token", ["short", "with a space in it all", "ends in a newline\n", "not-ascii-äöüäöüäöü"]
)
def test_invalid_token_is_refused_and_hidden(token: str) -> None:
    with pytest.raises(ValidationError, match="16 characters") as caught:
        WorkerSettings(model="m", token=SecretStr(token))
    assert token not in str(caught.value)


@pytest.mark.parametrize("token", [None, SecretStr(TOKEN)])
async def test_right_token_is_served(token: SecretStr | None) -> None:
    assert TOKEN not in repr(WorkerSettings(model="m", token=token))
    async with client_of(WorkerApp(FakeService(), 8, token)) as client:
        assert (await client.get(contract.LIVE_PATH)).status_code == 200
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert (await client.get(contract.READY_PATH)).status_code == 200
        assert msgspec.json.decode((await client.get(contract.INFO_PATH)).content)["task"] == "retrieval"
