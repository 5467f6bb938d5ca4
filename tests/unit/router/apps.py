"""The application with workers that are functions: no socket anywhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from router.app import App
from router.fleet import Fleet
from router.replica import State
from router.settings import RouterSettings
from tests.fakes.router import eventually
from tests.fakes.worker import vector_of
from workers import contract

ADDRESSES: dict[str, contract.PoolName] = {
    "retrieval:1": "retrieval",
    "matching:1": "text-matching",
    "code:1": "code",
}


class Workers:
    """One worker for each pool, at its address; those in `dead` do not answer.

    `batches` holds what they were given, `pools` which of them each was.
    """

    def __init__(self) -> None:
        self.dead: set[contract.PoolName] = set()
        self.batches: list[contract.EncodeRequest] = []
        self.pools: list[contract.PoolName] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        task = ADDRESSES[request.url.netloc.decode()]
        if task in self.dead:
            raise httpx.ConnectError("refused", request=request)
        match request.url.path:
            case contract.INFO_PATH:
                return httpx.Response(200, content=contract.encode_info(info(task)))
            case contract.READY_PATH:
                return httpx.Response(200)
        batch = contract.decode_request(request.content)
        self.batches.append(batch)
        self.pools.append(task)
        headers = {contract.VARIANT_HEADER: contract.variant_of(info(task))}
        return httpx.Response(200, headers=headers, content=frames(task, batch))


async def frames(task: contract.PoolName, batch: contract.EncodeRequest) -> AsyncIterator[bytes]:
    """What the worker of `task` answers."""
    for index, item in enumerate(batch.items):
        yield contract.encode_frame(msgspec.structs.replace(vector_of(task, item, 2048), index=index))


def info(task: contract.PoolName) -> contract.Info:
    """What the worker of `task` says of itself."""
    return contract.Info(task, "fake", "0" * 64, None, 2048, 128, 32_768, 8192, {})


@asynccontextmanager
async def client_of_app(workers: Workers, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has seen every worker which answers."""
    groups = [{"targets": [address], "labels": {"task": task}} for address, task in ADDRESSES.items()]
    configured = RouterSettings(workers=groups, **settings)  # type: ignore[arg-type]

    def make_client(*_: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(workers))

    fleet = Fleet(configured, make_client)
    app = App(configured, fleet)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url="http://router:80")
    async with app.guard, fleet, app.media, client:
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
