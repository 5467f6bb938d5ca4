"""Open-loop load: requests that do not wait for earlier replies."""

import asyncio

import httpx

from tests.fakes.router import RunningRouter, eventually

MOST_OPEN = 100
PAUSE_SECONDS = 0.01


class OpenLoop:
    """Sends a text after each pause until `stop`.

    It pauses while `MOST_OPEN` requests have no reply, so that a slow machine builds no backlog.
    """

    def __init__(self, router: RunningRouter) -> None:
        self._router = router
        self._sent: list[asyncio.Task[httpx.Response]] = []
        self._more = asyncio.create_task(self._send())

    @property
    def _done(self) -> int:
        return sum(task.done() for task in self._sent)

    async def _send(self) -> None:
        while True:
            await eventually(lambda: len(self._sent) - self._done < MOST_OPEN)
            self._sent.append(asyncio.create_task(self._router.ask([f"text {len(self._sent)}"])))
            await asyncio.sleep(PAUSE_SECONDS)

    async def answered(self, count: int) -> None:
        """Wait for `count` more replies."""
        goal = self._done + count
        await eventually(lambda: self._done >= goal)

    async def stop(self) -> set[int]:
        """Stop; returns the statuses of all replies."""
        self._more.cancel()
        return {reply.status_code for reply in await asyncio.gather(*self._sent)}
