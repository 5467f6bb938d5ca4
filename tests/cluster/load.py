"""Load on the routers of a cluster that checks every vector."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import httpx
import numpy as np

from tests.fakes.hang_guard import GUARD_SECONDS

TEXTS = tuple(f"text number {number} of those that are asked for again and again" for number in range(8))
CLIENTS = 3


async def vectors(url: str, task: str, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """The vectors of `texts`, float32 [texts, dimensions]."""
    async with httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as client:
        return await _embed(client, url, task, texts)


async def _embed(client: httpx.AsyncClient, url: str, task: str, texts: Sequence[str]) -> np.ndarray:
    reply = await client.post(f"{url}/v1/embeddings", json={"task": task, "input": list(texts)})
    assert reply.status_code == 200, reply.text
    return np.array([entry["embedding"] for entry in reply.json()["data"]], np.float32)


class Load:
    """Clients that ask for one task, one text after another; an async context manager.

    At its end every client has the reply to its last request. Fails if a request has failed.
    """

    def __init__(self, url: str, task: str) -> None:
        self._url, self._task = url, task
        self._answers: list[tuple[int, np.ndarray]] = []
        self._ended = False

    async def __aenter__(self) -> "Load":
        self._client = httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS)
        self._clients = [asyncio.create_task(self._ask_on()) for _ in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await asyncio.gather(*self._clients)
        await self._client.aclose()

    @property
    def answered(self) -> int:
        return len(self._answers)

    def check(self, *right: np.ndarray) -> Counter[int]:
        """Fail unless every reply is a right vector; returns how often each of `right` was the reply.

        During an upgrade there are two, each float32 [texts, dimensions].
        """
        assert self._answers, "nothing was sent"
        counts: Counter[int] = Counter()
        for number, answer in self._answers:
            scores = [float(answer @ vectors[number]) for vectors in right]
            assert max(scores) > 0.9999, "a wrong vector"
            counts[int(np.argmax(scores))] += 1
        return counts

    async def _ask_on(self) -> None:
        while not self._ended:
            number = self.answered % len(TEXTS)
            [vector] = await _embed(self._client, self._url, self._task, [TEXTS[number]])
            self._answers.append((number, vector))
            # The engines that start need the processors, too.
            await asyncio.sleep(0.1)
