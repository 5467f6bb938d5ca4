"""The directory: one Ray actor that tells routers where workers listen.

It carries no requests. While it is down, routers keep the last list of workers; Ray restarts it.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import ray
import ray.exceptions
import ray.util

from triptych.deploy.ray.book import Book
from triptych.deploy.ray.ray_private import HEAD_RESOURCE, store_once

log = logging.getLogger("ray.serve")

NAMESPACE = "triptych"
# Longest time of one call.
CALL_SECONDS = 5.0
# After this long a search asks a head that will never answer.
SEARCH_SECONDS = 60.0
# Serve places its controller like this. An actor on another node would keep the autoscaler from ending it.
ON_THE_HEAD = {HEAD_RESOURCE: 0.001}


class DirectoryLost(RuntimeError):
    """The directory does not answer; its last answer stays valid."""


class Directory:
    """The actor: a book with a clock.

    Its methods are not async, so Ray runs the calls of one process in order: no beat comes after a `leave`.
    """

    def __init__(self) -> None:
        self._book = Book(time.monotonic())

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the book now."""
        return getattr(self._book, method)(*arguments, time.monotonic())


def directory(name: str) -> Any:
    """The actor of the deployment `name`; started on the head if it does not run."""
    actor = ray.remote(Directory).options(
        name=f"{name}-directory",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
        resources=ON_THE_HEAD,
    )
    return actor.remote()


def find_directory(name: str) -> Any | None:
    """The actor of the deployment `name`, None if it does not run."""
    try:
        return ray.get_actor(f"{name}-directory", namespace=NAMESPACE)
    except ValueError:
        return None


async def repeat(call: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Call the directory every `seconds`. An error does not end this, since the next call may succeed."""
    last = ""
    while True:
        try:
            await call()
            last = ""
        except Exception as error:
            if repr(error) != last:
                last = repr(error)
                unexpected = not isinstance(error, DirectoryLost | httpx.HTTPError)
                log.warning("cannot reach the directory: %s", error, exc_info=unexpected)
        await asyncio.sleep(seconds)


class DirectoryClient:
    """Calls the directory of the deployment `name`; searches for it again when it is gone."""

    def __init__(
        self, name: str, find: Callable[[str], Any] = directory, search_seconds: float = SEARCH_SECONDS
    ) -> None:
        self._name = name
        self._find = find
        self._search_seconds = search_seconds
        self._search: asyncio.Task[Any] | None = None
        self._began = 0.0

    async def ask(self, method: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """Call a method of the book. Raises `DirectoryLost` when it does not answer in time."""
        try:
            async with asyncio.timeout(seconds):
                actor = await asyncio.shield(self._searching())
                return await asyncio.wrap_future(actor.ask.remote(method, *arguments).future())
        except (ray.exceptions.RayError, TimeoutError, ValueError) as error:
            if self._search is not None and self._search.done():
                self._search = None
            raise DirectoryLost(str(error) or f"no answer within {seconds:g} s") from error

    def _searching(self) -> asyncio.Task[Any]:
        """The current search. It asks the head, and its thread waits long when the head is down."""
        now = time.monotonic()
        if self._search is None or (not self._search.done() and now - self._began > self._search_seconds):
            self._began = now
            self._search = asyncio.create_task(asyncio.to_thread(self._find, self._name))
        return self._search


def node_address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def shared_token(name: str) -> str:
    """The secret between routers and workers of the deployment `name`; the first call creates it.

    Ray's store keeps it, so turn on Ray's token authentication to protect it.
    """
    made = secrets.token_urlsafe(32).encode()
    return store_once(f"{name}-worker-token", made, NAMESPACE).decode()
