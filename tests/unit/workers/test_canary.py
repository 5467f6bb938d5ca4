"""Canaries detect an engine that returns wrong vectors."""

import asyncio

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from tests.unit.workers.services import FakeService, batch, client_of, metric
from triptych.workers.asgi import WorkerApp
from triptych.workers.canary import Canaries, Drift
from triptych.workers.shared import contract
from triptych.workers.shared.contract import EncodeRequest, FrameReader, Item, Text, Vector


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def app(service: FakeService) -> WorkerApp:
    """An app whose canaries know their vectors and do not rest."""
    app = WorkerApp(service, 100)
    app.canaries = Canaries(service, app.metrics, rest=0, shortest_rest_seconds=0)
    await app.canaries.learn()
    return app


async def test_drift_takes_worker_out_of_service(
    service: FakeService, app: WorkerApp, caplog: pytest.LogCaptureFixture
) -> None:
    watching = asyncio.create_task(app.canaries.watch())
    async with client_of(app) as client:
        assert (await client.get(contract.READY_PATH)).status_code == 200
        service.drift = 0.1
        await asyncio.wait_for(watching, GUARD_SECONDS)
        assert (await client.get(contract.READY_PATH)).status_code == 503
        assert (await client.get(contract.LIVE_PATH)).status_code == 200
        refused = await client.post(contract.ENCODE_PATH, content=batch("a"))
        assert (refused.status_code, refused.headers[contract.STATE_HEADER]) == (503, contract.DRAINING)
        assert await metric(client, "canary_failures_total") == 1
        assert await metric(client, "canary_drift", canary="text") == pytest.approx(0.1, rel=0.01)
    # The operator has to know since when vectors may be wrong.
    assert "right 0 s before" in caplog.text


async def test_drifted_vectors_are_not_sent(service: FakeService, app: WorkerApp) -> None:
    async with client_of(app) as client:
        service.gate.clear()
        service.waiting.clear()
        held = asyncio.create_task(client.post(contract.ENCODE_PATH, content=batch("a")))
        await service.waiting.wait()
        service.drift = 0.1
        watching = asyncio.create_task(app.canaries.watch())
        service.gate.set()
        await watching
        reply = await held
    assert reply.status_code == 500 or not list(FrameReader().feed(reply.content))


async def test_rounding_is_tolerated(service: FakeService, app: WorkerApp) -> None:
    watching = asyncio.create_task(app.canaries.watch())
    service.drift = 0.004
    steps = service.engine.steps
    await eventually(lambda: service.engine.steps >= steps + 3)
    assert app.canaries.failure is None
    watching.cancel()


async def test_failed_item_wakes_canaries(service: FakeService, app: WorkerApp) -> None:
    app.canaries = Canaries(service, app.metrics, rest=1e12, shortest_rest_seconds=0)
    await app.canaries.learn()
    watching = asyncio.create_task(app.canaries.watch())
    async with client_of(app) as client:
        await client.post(contract.ENCODE_PATH, content=batch("a"))
        assert (await client.get(contract.READY_PATH)).status_code == 200
        service.fails_after = 0
        await client.post(contract.ENCODE_PATH, content=batch("a"))
        await asyncio.wait_for(watching, GUARD_SECONDS)
        assert (await client.get(contract.READY_PATH)).status_code == 503


async def test_drift_during_start_is_detected() -> None:
    class Drifting(FakeService):
        async def encode(self, item: Item) -> Vector:
            self.drift += 0.1
            return await super().encode(item)

    with pytest.raises(Drift):
        await WorkerApp(Drifting(), 100).canaries.learn()


async def test_refused_canary_stops_start(service: FakeService) -> None:
    service.canaries = {"text": EncodeRequest([Item(Text("bad", "query"))])}
    with pytest.raises(Drift, match="token_limit"):
        await WorkerApp(service, 100).canaries.learn()
