"""What becomes of a batch whose engine dies: one reply that is cut, and no failure for each item."""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.unit.workers.services import FakeService
from tests.unit.workers.test_observing import batch, client_of
from workers.app import WorkerApp
from workers.shared.contract import (
    DEAD,
    DRAINING,
    ENCODE_PATH,
    METRICS_PATH,
    STATE_HEADER,
    Frame,
    FrameReader,
    Item,
    Text,
    Vector,
)


class Service(FakeService):
    """An engine that has `vectors` in it before it dies."""

    def __init__(self, vectors: int) -> None:
        super().__init__()
        self._left = vectors

    async def encode(self, item: Item) -> Frame:
        if self._left:
            self._left -= 1
            return await super().encode(item)
        if item.content == Text("late", "query"):
            await asyncio.sleep(0.01)
        self.dead = True
        raise RuntimeError("EngineCore encountered an issue")


async def sent(app: WorkerApp, body: bytes) -> list[MutableMapping[str, Any]]:
    """What the server is given for a batch."""
    messages: list[MutableMapping[str, Any]] = []
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async with asyncio.timeout(5):
        await app({"type": "http", "method": "POST", "path": ENCODE_PATH, "headers": []}, receive, send)
    return messages


@pytest.mark.parametrize("last", ["at once", "late"])
async def test_the_reply_is_cut_behind_the_vectors_that_there_were(
    last: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = WorkerApp(Service(vectors=2), 100)
    with caplog.at_level(logging.ERROR):
        start, *bodies = await sent(app, batch("a", "b", *[last] * 50))
    assert start["status"] == 200
    frames = list(FrameReader().feed(b"".join(body["body"] for body in bodies)))
    assert [type(frame) for frame in frames] == [Vector, Vector]
    assert all(body["more_body"] for body in bodies)
    assert len(caplog.records) == 1
    async with client_of(app) as client:
        page = (await client.get(METRICS_PATH)).text
    assert 'triptych_worker_items_total{outcome="abandoned"} 50.0' in page


async def test_a_batch_of_which_nothing_was_done_has_failed_too() -> None:
    start, body = await sent(WorkerApp(Service(vectors=0), 100), batch("a", "b"))
    assert start["status"] == 500
    assert (STATE_HEADER.encode(), DEAD.encode()) in start["headers"]
    assert b"engine has died" in body["body"]


async def test_no_batch_is_taken_once_the_engine_is_dead() -> None:
    service = Service(vectors=9)
    service.dead = True
    async with client_of(WorkerApp(service, 100)) as client:
        reply = await client.post(ENCODE_PATH, content=batch("a"))
    assert reply.status_code == 503
    assert reply.headers[STATE_HEADER] == DRAINING
