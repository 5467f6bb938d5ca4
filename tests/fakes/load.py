"""Load that does not wait for its answers, and what becomes of it."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import httpx

from tests.fakes.router import eventually


class Asked(Protocol):
    """Whoever can have texts embedded."""

    async def ask(self, texts: Sequence[str]) -> httpx.Response: ...


class OpenLoop:
    """Requests that come one after another whatever becomes of those before them."""

    def __init__(self, router: Asked, size: int = 1) -> None:
        self._router = router
        self._size = size
        self._sent: list[asyncio.Task[httpx.Response]] = []
        self._more = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while True:
            texts = [f"text {len(self._sent)} {index}" for index in range(self._size)]
            self._sent.append(asyncio.create_task(self._router.ask(texts)))
            await asyncio.sleep(0.002)

    async def answered(self, count: int) -> None:
        """Wait for so many answers more."""
        goal = self._done() + count
        # What has been sent is ever more, where the machine is slower than the loop.
        await eventually(lambda: self._done() >= goal, seconds=120)

    def _done(self) -> int:
        return sum(task.done() for task in self._sent)

    async def stop(self) -> dict[str, int]:
        """How often each outcome was had: `ok`, a status with its code, or an exception."""
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
