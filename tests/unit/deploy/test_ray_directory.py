"""Calls to the directory while the head is down."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.deploy.ray.directory import Directory, DirectoryClient, DirectoryLost


def actor(answer: Callable[[str], str]) -> Any:
    """An actor that answers at once, or fails."""

    def remote(method: str) -> Any:
        future: Future[str] = Future()
        try:
            future.set_result(answer(method))
        except ValueError as error:
            future.set_exception(error)
        return SimpleNamespace(future=lambda: future)

    return SimpleNamespace(ask=SimpleNamespace(remote=remote))


@pytest.mark.parametrize(("search_seconds", "searches"), [(60, 1), (0, 3)])
async def test_search_that_hangs_is_given_up(search_seconds: float, searches: int) -> None:
    back = threading.Event()
    begun: list[str] = []

    def find(name: str) -> Any:
        begun.append(name)
        back.wait(GUARD_SECONDS)
        return actor(lambda method: f"its {method}")

    client = DirectoryClient("mine", find, search_seconds)
    for _ in range(3):
        with pytest.raises(DirectoryLost, match="no answer within"):
            await client.ask("look", seconds=0.02)
    back.set()
    assert begun == ["mine"] * searches
    client = DirectoryClient("mine", find)
    assert await client.ask("look", seconds=30) == "its look"


async def test_lost_actor_is_searched_again() -> None:
    def gone(method: str) -> str:
        raise ValueError("the actor died")

    found = iter([actor(gone), ValueError("no head"), actor(lambda _: "members")])

    def find(name: str) -> Any:
        its = next(found)
        if isinstance(its, ValueError):
            raise its
        return its

    client = DirectoryClient("mine", find)
    for reason in ("the actor died", "no head"):
        with pytest.raises(DirectoryLost, match=reason):
            await client.ask("look", seconds=30)
    answers = await asyncio.gather(*[client.ask("look", seconds=30) for _ in range(3)])
    assert answers == ["members"] * 3


def test_actor_asks_the_book() -> None:
    directory = Directory()
    assert directory.ask("pressure", "code") is None
    assert directory.ask("served_by_all", "10.0.0.1:8101")
