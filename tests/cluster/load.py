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
        reply = await client.post(f"{url}/v1/embeddings", json={"task": task, "input": list(texts)})
    assert reply.status_code == 200, reply.text
    return np.array([entry["embedding"] for entry in reply.json()["data"]], np.float32)


class Load:
    """Clients that ask for one task, one text after another; an async context manager.

    At its end every client has the reply to its last request.
    """

    def __init__(self, url: str, task: str) -> None:
        self._url, self._task = url, task
        self._answers: list[tuple[int, np.ndarray | str]] = []
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
        counts: Counter[int | str] = Counter()
        for number, answer in self._answers:
            if isinstance(answer, str):
                counts[answer] += 1
                continue
            scores = [float(answer @ vectors[number]) for vectors in right]
            best = max(range(len(right)), key=scores.__getitem__)
            counts[best if scores[best] > 0.9999 else "a wrong vector"] += 1
        assert all(isinstance(outcome, int) for outcome in counts), counts
        return Counter({int(outcome): count for outcome, count in counts.items()})

    async def _ask_on(self) -> None:
        while not self._ended:
            number = len(self._answers) % len(TEXTS)
            self._answers.append((number, await self._ask(number)))
            # The engines that start need the processors, too.
            await asyncio.sleep(0.1)

    async def _ask(self, number: int) -> np.ndarray | str:
        body = {"task": self._task, "input": [TEXTS[number]]}
        try:
            reply = await self._client.post(f"{self._url}/v1/embeddings", json=body)
        except httpx.HTTPError as error:
            return repr(error)
        if reply.status_code != 200:
            return f"{reply.status_code} {reply.text[:200]}"
        return np.array(reply.json()["data"][0]["embedding"], np.float32)
