"""Calls to the directory while the head is down."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from deploy.ray import directory
from deploy.ray.directory import DirectoryClient, DirectoryLost


class Method:
    """A method of an actor that answers at once, or fails."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self._answer = answer

    def remote(self) -> "Method":
        return self

    def future(self) -> "Future[str]":
        future: Future[str] = Future()
        try:
            future.set_result(self._answer())
        except ValueError as error:
            future.set_exception(error)
        return future


class Actor:
    def __init__(self, answer: Callable[[], str]) -> None:
        self.look = Method(answer)


async def test_one_search_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = threading.Event()
    searches = []

    def find(name: str) -> Actor:
        searches.append(name)
        back.wait(30)
        return Actor(lambda: "members")

    monkeypatch.setattr(directory, "directory", find)
    client = DirectoryClient("mine")
    for _ in range(5):
        with pytest.raises(DirectoryLost, match="no answer within"):
            await client.ask("look", seconds=0.02)
    assert searches == ["mine"]
    # The search that hangs is given up.
    monkeypatch.setattr(directory, "SEARCH_SECONDS", 0.0)
    with pytest.raises(DirectoryLost):
        await client.ask("look", seconds=0.02)
    assert searches == ["mine"] * 2
    monkeypatch.setattr(directory, "SEARCH_SECONDS", 60.0)
    back.set()
    assert await client.ask("look", seconds=30) == "members"
    assert searches == ["mine"] * 2


async def test_a_lost_actor_is_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise ValueError("the actor died")

    found = iter([Actor(gone), ValueError("no head"), Actor(lambda: "members")])

    def find(name: str) -> Actor:
        actor = next(found)
        if isinstance(actor, ValueError):
            raise actor
        return actor

    monkeypatch.setattr(directory, "directory", find)
    client = DirectoryClient("mine")
    for reason in ("the actor died", "no head"):
        with pytest.raises(DirectoryLost, match=reason):
            await client.ask("look", seconds=30)
    answers = await asyncio.gather(*[client.ask("look", seconds=30) for _ in range(3)])
    assert answers == ["members"] * 3
