"""The application with in-process workers, without sockets."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from yarl import URL

from tests.fakes.frames import query_of, vector_of
from tests.fakes.router import eventually
from triptych.router.api.app import App
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.replica import State
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract

ADDRESSES: dict[str, contract.PoolName] = {
    "retrieval:1": "retrieval",
    "matching:1": "text-matching",
    "code:1": "code",
}


@dataclass
class Answer:
    """A worker's reply."""

    parts: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200

    @property
    def content(self) -> "Answer":
        return self

    def iter_any(self) -> AsyncIterator[bytes]:
        return self.parts

    async def read(self) -> bytes:
        return b"".join([part async for part in self.parts])


class Workers:
    """A session with one worker per pool; those in `dead` and other addresses refuse connections.

    `batches` records the batches, `pools` the pool of each.
    """

    def __init__(self) -> None:
        self.dead: set[contract.PoolName] = set()
        self.batches: list[contract.EncodeRequest] = []
        self.pools: list[contract.PoolName] = []

    @asynccontextmanager
    async def get(self, url: URL, **_: object) -> AsyncIterator[Answer]:
        yield Answer(one(contract.encode_info(info(self._pool_at(url)))))

    @asynccontextmanager
    async def post(self, url: URL, *, data: bytes, **_: object) -> AsyncIterator[Answer]:
        task = self._pool_at(url)
        batch = contract.decode_request(data)
        self.batches.append(batch)
        self.pools.append(task)
        yield Answer(
            frames(task, batch), {contract.SPACE_HEADER: contract.space_header(task, info(task).space)}
        )

    async def close(self) -> None:
        """Nothing to close."""

    def _pool_at(self, url: URL) -> contract.PoolName:
        task = ADDRESSES.get(url.authority)
        if task is None or task in self.dead:
            raise ConnectionRefusedError
        return task


async def one(body: bytes) -> AsyncIterator[bytes]:
    """A body in one piece."""
    yield body


async def frames(task: contract.PoolName, batch: contract.EncodeRequest) -> AsyncIterator[bytes]:
    """The frames of the worker of `task`."""
    for index, item in enumerate(batch.items):
        yield contract.encode_frame(
            msgspec.structs.replace(vector_of(task, item, 2048, query_of(item, batch)), index=index)
        )


def info(task: contract.PoolName) -> contract.Info:
    """The info of the worker of `task`."""
    return contract.Info(task, "fake", "0" * 16, "1", None, 2048, 128, 32_768, 8192, {})


def settings_of(**given: Any) -> RouterSettings:
    """The settings of a router in front of all workers."""
    groups = [{"targets": [address], "labels": {"task": task}} for address, task in ADDRESSES.items()]
    return RouterSettings(workers=groups, **given)  # type: ignore[arg-type]


@asynccontextmanager
async def client_of_app(workers: Workers, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose workers are ready, except dead ones."""
    configured = settings_of(**settings)
    fleet = Fleet(configured, lambda *_: workers)
    app = App(configured, fleet)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url="http://router:80")
    async with fleet, app.media, client:
        replicas = [replica for pool in fleet.pools.values() for replica in pool.replicas]
        await eventually(
            lambda: all(
                replica.reason == "connection refused"
                if replica.pool in workers.dead
                else replica.state is State.READY
                for replica in replicas
            )
        )
        yield client
