"""The whole router on a real port, in the test's event loop, so that a test can inspect it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn

from tests.fakes.frames import Mode, vector_of
from tests.fakes.hang_guard import GUARD_SECONDS, eventually
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.api.app import App
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.replica import Replica, State
from triptych.router.serving.protocol import Protocol
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract

# Settings of a router that must refuse no load: admission goes by the rate, which a busy machine makes low.
PATIENT = {"request_timeout_seconds": 600.0}


class _Server(uvicorn.Server):
    """Leaves signals to the test runner, and stops at once; uvicorn's own polls every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Stop after the current requests."""
        self._stopping.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            await eventually(lambda: not (self.server_state.connections or self.server_state.tasks))
        finally:
            await self.lifespan.shutdown()


class RunningRouter:
    """A serving router; `client` talks to it over a socket."""

    def __init__(self, app: App, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.fleet: Fleet = app.fleet

    async def post(self, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """`POST /v1/embeddings`; the task is retrieval.query unless `body` says otherwise."""
        body.setdefault("task", "retrieval.query")
        return await self.client.post("/v1/embeddings", json=body, headers=headers)

    async def ask(self, texts: Sequence[str], **body: Any) -> httpx.Response:
        """Embed `texts`, and check every vector of a 200."""
        reply = await self.post(input=list(texts), **body)
        if reply.status_code == 200:
            check(reply, texts)
        return reply

    def replica(self, worker: FakeWorker) -> Replica:
        """The router's replica of `worker`."""
        [found] = [replica for replica in self._replicas() if replica.address == worker.address]
        return found

    def _replicas(self) -> list[Replica]:
        return [replica for pool in self.fleet.pools.values() for replica in pool.replicas]

    def knows(self, worker: FakeWorker) -> bool:
        """Whether the router has a replica of `worker`."""
        return any(worker.address == replica.address for replica in self._replicas())

    async def until_state(self, worker: FakeWorker, *states: State) -> None:
        """Wait until `worker` is in one of `states`."""
        await eventually(lambda: self.knows(worker) and self.replica(worker).state in states)

    async def until_idle(self) -> None:
        """Wait until nothing waits and nothing is in flight; fails when something was left behind."""
        pools, replicas = self.fleet.pools.values(), self._replicas()
        await eventually(
            lambda: (
                not self.waiting_items
                and not any(pool.queue.tokens or pool.in_flight for pool in pools)
                and not any(replica.tokens_in_flight or replica.lanes_in_use for replica in replicas)
            )
        )

    @property
    def waiting_items(self) -> int:
        """Items that wait in all pools."""
        return sum(pool.queue.items for pool in self.fleet.pools.values())


def check(reply: httpx.Response, texts: Sequence[str], role: contract.Role = "query") -> None:
    """Check that `reply` holds the vectors of `texts` in order."""
    data = reply.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(texts)))
    for entry, text in zip(data, texts, strict=True):
        wire = contract.Item(contract.Text(text, role))
        right = np.frombuffer(vector_of("retrieval", wire, len(entry["embedding"])).data, np.float32)
        np.testing.assert_array_equal(np.array(entry["embedding"], np.float32), right)


def workers_setting(workers: Sequence[FakeWorker], task: str | None = None) -> list[dict[str, Any]]:
    """The workers as the router's setting; `task` replaces what the worker reports."""
    return [{"targets": [worker.address], "labels": {"task": task or worker.info.task}} for worker in workers]


@asynccontextmanager
async def running_router(
    *workers: FakeWorker, task: str | None = None, wait: bool = True, **settings: Any
) -> AsyncIterator[RunningRouter]:
    """A router in front of `workers`; with `wait`, once all of them are ready.

    With the setting `discovery` it gets no list of workers.
    """
    if "discovery" not in settings:
        settings["workers"] = workers_setting(workers, task)
    configured = RouterSettings(**settings)
    app = App(configured, Fleet(configured, retry_seconds=(0.02, 0.05)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    # As uvloop does. Otherwise a reply in two writes waits for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=configured.keep_alive_seconds,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    limits = httpx.Limits(max_connections=None)
    try:
        async with httpx.AsyncClient(
            base_url=address, timeout=GUARD_SECONDS, limits=limits, trust_env=False
        ) as client:
            router = RunningRouter(app, client)
            assert (await client.get("/live")).status_code == 200
            if wait:
                for worker in workers:
                    await router.until_state(worker, State.READY)
            yield router
    finally:
        server.stop()
        await serving
        listener.close()


@asynccontextmanager
async def one_worker(
    mode: Mode = "healthy", **settings: Any
) -> AsyncIterator[tuple[RunningRouter, FakeWorker]]:
    """A router in front of one worker."""
    worker = FakeWorker()
    worker.mode = mode
    async with fake_workers(worker), running_router(worker, **settings) as router:
        yield router, worker
