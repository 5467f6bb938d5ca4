"""Open-loop load: requests that do not wait for earlier replies."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import httpx

from tests.fakes.router import eventually

MOST_OPEN = 100
PAUSE_SECONDS = 0.01


class Asked(Protocol):
    """A router that embeds texts."""

    async def ask(self, texts: Sequence[str]) -> httpx.Response: ...


class OpenLoop:
    """Sends a request of `size` texts after each pause until `stop`.

    It pauses while `MOST_OPEN` requests have no reply, so that a slow machine builds no backlog.
    """

    def __init__(self, router: Asked, size: int = 1) -> None:
        self._router = router
        self._size = size
        self._sent: list[asyncio.Task[httpx.Response]] = []
        self._done = 0
        self._more = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while True:
            await eventually(lambda: len(self._sent) - self._done < MOST_OPEN)
            texts = [f"text {len(self._sent)} {index}" for index in range(self._size)]
            task = asyncio.create_task(self._router.ask(texts))
            task.add_done_callback(self._count)
            self._sent.append(task)
            await asyncio.sleep(PAUSE_SECONDS)

    async def answered(self, count: int) -> None:
        """Wait for `count` more replies."""
        goal = self._done + count
        await eventually(lambda: self._done >= goal)

    def _count(self, _: asyncio.Task[httpx.Response]) -> None:
        self._done += 1

    async def stop(self) -> dict[str, int]:
        """Stop, and count the outcomes: `ok`, a status with its reply, or an exception."""
        self._more.cancel()
        outcomes: dict[str, int] = {}
        for result in await asyncio.gather(*self._sent, return_exceptions=True):
            if isinstance(result, BaseException):
                outcome = repr(result)[:200]
            elif result.status_code == 200:
                outcome = "ok"
            else:
                outcome = f"{result.status_code} {result.text[:200]}"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        return outcomes
