"""The cluster's directory: one small Ray actor with the book of who serves where.

It carries no request. Without it everybody goes on with what was known last; Ray starts it again.
"""

import asyncio
import secrets
import time
from typing import Any, get_args

import ray
import ray.exceptions
import ray.util
from ray.experimental import internal_kv

from deploy.ray.book import Book, Groups, Member, Overview, RouterReport
from deploy.ray.pressure import Pressure
from workers.shared.contract import PoolName

NAMESPACE = "triptych"
# Longest time that one question to it may take.
CALL_SECONDS = 5.0
# A search that has not ended by then asks a head that will not answer any more.
SEARCH_SECONDS = 60.0
# As Serve places its controller: an actor that needs nothing could be on any node, and Ray never ends a node
# with an actor on it for being idle.
ON_THE_HEAD = {"node:__internal_head__": 0.001}


class DirectoryLost(RuntimeError):
    """The directory does not answer; what it said last is as good as it was."""


class Directory:
    """The actor. Its methods are called from replicas, routers, the autoscaling policy and `status`."""

    def __init__(self) -> None:
        self._book = Book(time.monotonic())
        self._changed = asyncio.Condition()

    async def beat(self, member: Member) -> None:
        """A worker serves; said every two seconds."""
        self._book.beat(member, time.monotonic())

    async def leave(self, id: str) -> None:
        """A worker is about to stop."""
        self._book.leave(id, time.monotonic())

    async def report(self, report: RouterReport) -> Groups | None:
        """What a router knows, said every half a second; the answer is the document, once it is known."""
        now = time.monotonic()
        self._book.report(report, now)
        async with self._changed:
            self._changed.notify_all()
        return self._book.document(now)

    async def forget_router(self, id: str) -> None:
        """A router is about to stop."""
        self._book.forget_router(id)
        async with self._changed:
            self._changed.notify_all()

    async def until_served(self, address: str, seconds: float) -> bool:
        """Wait until every router gives work to `address`, for so many seconds at most; whether they do."""
        return await self._until(lambda: self._book.served_by_all(address, time.monotonic()), seconds)

    async def until_forgotten(self, address: str, seconds: float) -> bool:
        """Wait until no router knows `address`, for so many seconds at most; whether none does."""
        return await self._until(lambda: self._book.known_by_none(address, time.monotonic()), seconds)

    async def pressure(self, pool: PoolName) -> Pressure | None:
        """What all routers have for a pool, None while that is not known."""
        return self._book.pressure(pool, time.monotonic())

    async def overview(self) -> Overview:
        """All workers and routers, and the pressure of each pool that is known."""
        now = time.monotonic()
        pressures = {pool: self._book.pressure(pool, now) for pool in get_args(PoolName)}
        known = {pool: pressure for pool, pressure in pressures.items() if pressure is not None}
        return Overview(self._book.members(now), self._book.routers(now), known)

    async def _until(self, holds: Any, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            return False
        return True


def directory(name: str) -> Any:
    """The actor of the deployment `name`, started on the head where there is none, and again by Ray."""
    return (
        ray.remote(Directory)
        .options(
            name=f"{name}-directory",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            resources=ON_THE_HEAD,
            max_concurrency=10_000,
        )
        .remote()
    )


def find_directory(name: str) -> Any | None:
    """The actor of the deployment `name`, None where there is none."""
    try:
        return ray.get_actor(f"{name}-directory", namespace=NAMESPACE)
    except ValueError:
        return None


class DirectoryClient:
    """The directory of the deployment `name` as replicas see it: found once, and again when it is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._search: asyncio.Task[Any] | None = None
        self._began = 0.0

    async def ask(self, method: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """Call a method of the actor. Raises `DirectoryLost` when it does not answer in time."""
        try:
            async with asyncio.timeout(seconds):
                actor = await asyncio.shield(self._searching())
                return await asyncio.wrap_future(getattr(actor, method).remote(*arguments).future())
        except (ray.exceptions.RayError, TimeoutError, ValueError) as error:
            if self._search is not None and self._search.done():
                self._search = None
            raise DirectoryLost(str(error) or f"no answer within {seconds:g} s") from error

    def _searching(self) -> asyncio.Task[Any]:
        """The search that is done or under way. It asks the head; without one its thread waits for long."""
        now = time.monotonic()
        if self._search is None or (not self._search.done() and now - self._began > SEARCH_SECONDS):
            self._began = now
            self._search = asyncio.create_task(asyncio.to_thread(directory, self._name))
        return self._search


def node_address() -> str:
    """The address of this node in the cluster."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def shared_token(name: str) -> str:
    """The secret between routers and workers of the deployment `name`, made up by whoever asks first.

    It is kept with Ray's own state of the cluster, and as safe as that: use Ray's token authentication.
    """
    key = f"{name}-worker-token".encode()
    internal_kv._internal_kv_put(key, secrets.token_urlsafe(32).encode(), False, namespace=NAMESPACE)
    token: bytes = internal_kv._internal_kv_get(key, namespace=NAMESPACE)
    return token.decode()
