"""When a worker says that it is ready, with an engine that fails as a test has it."""

from functools import partial

import httpx

from tests.fakes.worker import FakeWorker, vector_of
from tests.unit.workers.test_observing import batch, client_of
from workers.app import WorkerApp
from workers.contract import ENCODE_PATH, READY_PATH, EncodeRequest, Failure, Frame, Item
from workers.encoding import Job


class Service:
    """An engine that gives vectors while it is `sound`."""

    info = FakeWorker().info
    dead = False

    def __init__(self) -> None:
        self.sound = True
        self.probes = 0

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        return [partial(self._encode, item) for item in request.items]

    async def _encode(self, item: Item) -> Frame:
        if not self.sound:
            raise RuntimeError("the vector is not finite")
        return vector_of("retrieval", item, 8)

    async def probe(self) -> None:
        self.probes += 1
        if not self.sound:
            raise RuntimeError("the vector is not finite")

    async def warm_up(self) -> None: ...
    def shutdown(self) -> None: ...


async def readiness(client: httpx.AsyncClient) -> int:
    return (await client.get(READY_PATH)).status_code


async def test_vectors_are_as_good_as_a_probe() -> None:
    service = Service()
    async with client_of(WorkerApp(service, 100)) as client:
        await client.post(ENCODE_PATH, content=batch("a"))
        assert await readiness(client) == 200
    assert service.probes == 0


async def test_an_engine_that_only_fails_is_not_ready_however_busy() -> None:
    service = Service()
    service.sound = False
    async with client_of(WorkerApp(service, 100)) as client:
        assert (await client.post(ENCODE_PATH, content=batch("a", "b"))).status_code == 200
        assert await readiness(client) == 503
        service.sound = True
        assert (await client.post(ENCODE_PATH, content=batch("a", "b"))).status_code == 200
        assert await readiness(client) == 200
    assert service.probes == 1
