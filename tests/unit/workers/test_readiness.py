"""Liveness, readiness and progress of a worker, with an engine that fails as a test has it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx
import numpy as np
import pytest

from tests.unit.router.test_metrics import parse, value
from tests.unit.workers.services import FakeService
from tests.unit.workers.test_observing import batch, client_of
from workers import canary, encoding
from workers.app import WorkerApp
from workers.canary import Drift
from workers.shared.contract import (
    DRAINING,
    ENCODE_PATH,
    LIVE_PATH,
    METRICS_PATH,
    READY_PATH,
    STATE_HEADER,
    EncodeRequest,
    Failure,
    Frame,
    FrameReader,
    Item,
    Text,
    Vector,
)
from workers.watchdog import Watchdog


class Service(FakeService):
    """Turns its vectors away by `drift` of their length; `gate` holds every item until it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.drift = 0.0
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.canaries = {"text": EncodeRequest([Item(Text("a canary", "query"))])}

    async def encode(self, item: Item) -> Frame:
        await self.gate.wait()
        if self.fails:
            raise RuntimeError("the vector is not finite")
        vector = await super().encode(item)
        assert isinstance(vector, Vector)
        values = np.frombuffer(vector.data, np.float32).copy()
        values[0] += self.drift
        return Vector(vector.index, vector.tokens, vector.shape, values.tobytes())


async def readiness(client: httpx.AsyncClient) -> int:
    return (await client.get(READY_PATH)).status_code


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 (a page of metrics says nothing when it changes)
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "SHORTEST_REST_SECONDS", 0.0)
    monkeypatch.setattr(canary, "REST", 0.0)
    monkeypatch.setattr(encoding, "PROGRESS_SECONDS", 0.01)


async def test_readiness_does_not_wait_for_a_busy_engine() -> None:
    service = Service()
    async with client_of(WorkerApp(service, 100)) as client:
        service.gate.clear()
        held = asyncio.create_task(client.post(ENCODE_PATH, content=batch("long")))
        async with asyncio.timeout(5):
            assert await readiness(client) == 200
        service.gate.set()
        await held


async def test_a_reply_shows_progress_only_while_the_engine_makes_steps() -> None:
    service = Service()
    service.gate.clear()
    sent: list[bytes] = []
    grown = asyncio.Condition()
    frames = encoding.encode_batch(
        service,
        EncodeRequest([Item(Text("long", "query"))]),
        WorkerApp(service, 100)._metrics,
        lambda: None,
    )

    async def read() -> None:
        async for chunk in frames:
            sent.append(chunk.data)
            async with grown:
                grown.notify_all()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    for count in (1, 2):
        service.steps += 1
        async with asyncio.timeout(5), grown:
            await grown.wait_for(lambda count=count: len(sent) == count)
    service.gate.set()
    await reading
    assert len(sent) == 3
    [frame] = FrameReader().feed(b"".join(sent))
    assert isinstance(frame, Vector)


async def test_a_drifting_engine_is_taken_out_of_service_and_shows_in_metrics() -> None:
    service = Service()
    app = WorkerApp(service, 100)
    await app.canaries.learn()
    watching = asyncio.create_task(app.canaries.watch())
    async with client_of(app) as client:
        assert await readiness(client) == 200
        service.drift = 0.1
        await asyncio.wait_for(watching, 10)
        assert await readiness(client) == 503
        assert (await client.get(LIVE_PATH)).status_code == 200
        refused = await client.post(ENCODE_PATH, content=batch("a"))
        assert (refused.status_code, refused.headers[STATE_HEADER]) == (503, DRAINING)
        page = parse((await client.get(METRICS_PATH)).text)
    assert value(page, "triptych_worker_canary_failures_total") == 1
    assert value(page, "triptych_worker_canary_drift", canary="text") == pytest.approx(0.1, rel=0.01)


async def test_vectors_of_an_engine_that_has_drifted_are_not_sent() -> None:
    service = Service()
    app = WorkerApp(service, 100)
    await app.canaries.learn()
    async with client_of(app) as client:
        service.gate.clear()
        held = asyncio.create_task(client.post(ENCODE_PATH, content=batch("a")))
        await eventually(lambda: _has_items(client))
        service.drift = 0.1
        watching = asyncio.create_task(app.canaries.watch())
        service.gate.set()
        await watching
        reply = await held
    assert reply.status_code == 500 or not list(FrameReader().feed(reply.content))


async def _has_items(client: httpx.AsyncClient) -> bool:
    return value(parse((await client.get(METRICS_PATH)).text), "triptych_worker_waiting_items") == 1


async def test_rounding_is_no_drift() -> None:
    service = Service()
    app = WorkerApp(service, 100)
    await app.canaries.learn()
    watching = asyncio.create_task(app.canaries.watch())
    service.drift = 0.004
    steps = service.steps
    async with client_of(app) as client:
        await eventually(lambda: _later(service, steps + 3))
        assert await readiness(client) == 200
    watching.cancel()


async def _later(service: Service, steps: int) -> bool:
    return service.steps >= steps


async def test_an_item_that_fails_inside_the_engine_has_the_canaries_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canary, "REST", 1e12)
    service = Service()
    app = WorkerApp(service, 100)
    await app.canaries.learn()
    watching = asyncio.create_task(app.canaries.watch())
    async with client_of(app) as client:
        await client.post(ENCODE_PATH, content=batch("a"))
        assert await readiness(client) == 200
        service.fails = True
        await client.post(ENCODE_PATH, content=batch("a"))
        await asyncio.wait_for(watching, 10)
        assert await readiness(client) == 503


async def test_an_engine_that_differs_at_start_does_not_start() -> None:
    service = Service()

    async def encode(item: Item) -> Frame:
        service.drift += 0.1
        return await Service.encode(service, item)

    service.encode = encode  # type: ignore[method-assign]
    with pytest.raises(Drift):
        await WorkerApp(service, 100).canaries.learn()


async def test_canaries_report_an_item_that_is_refused() -> None:
    service = Service()
    service.job = lambda index, item: Failure(index, "invalid", "no")  # type: ignore[method-assign]
    with pytest.raises(Drift, match="invalid: no"):
        await WorkerApp(service, 100).canaries.learn()


class Ends:
    """What a watchdog calls instead of ending the process."""

    def __init__(self) -> None:
        self.called = threading.Event()

    def __call__(self) -> None:
        self.called.set()


async def ends(service: FakeService, *, while_: Callable[[], None] = lambda: None) -> bool:
    """Whether a watchdog of 20 looks, one each 5 ms, ends the worker within 60 looks."""
    end = Ends()
    watchdog = Watchdog(service, 0.1, end, 0.005)
    watchdog.start(asyncio.get_running_loop())
    try:
        for _ in range(60):
            while_()
            if await asyncio.to_thread(end.called.wait, 0.005):
                return True
        return False
    finally:
        watchdog.close()


async def test_a_worker_whose_engine_has_work_and_makes_no_step_ends() -> None:
    service = FakeService()
    service.busy = True
    assert await ends(service)


async def test_a_busy_worker_that_makes_steps_lives() -> None:
    service = FakeService()
    service.busy = True

    def step() -> None:
        service.steps += 1

    assert not await ends(service, while_=step)


async def test_an_idle_worker_lives() -> None:
    assert not await ends(FakeService())


async def test_a_worker_whose_event_loop_is_stuck_ends() -> None:
    end = Ends()
    watchdog = Watchdog(FakeService(), 0.1, end, 0.005)
    watchdog.start(asyncio.get_running_loop())
    # On the loop, as what holds it up would be.
    assert end.called.wait(10)
    watchdog.close()
