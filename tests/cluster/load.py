"""Open-loop load on the routers of a cluster that checks every vector."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import httpx
import numpy as np

TEXTS = tuple(f"text number {number} of those that are asked for again and again" for number in range(8))


async def vectors(url: str, task: str, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """The vectors of `texts`, float32 [texts, dimensions]."""
    async with httpx.AsyncClient(trust_env=False, timeout=300) as client:
        reply = await client.post(f"{url}/v1/embeddings", json={"task": task, "input": list(texts)})
    assert reply.status_code == 200, reply.text
    return np.array([entry["embedding"] for entry in reply.json()["data"]], np.float32)


class Load:
    """Requests for one task at a steady rate, without waiting for replies; an async context manager."""

    def __init__(self, url: str, task: str, per_second: float = 15) -> None:
        self._url, self._task, self._per_second = url, task, per_second
        self._sent: list[asyncio.Task[np.ndarray | str]] = []
        self._longest = 0.0

    async def __aenter__(self) -> "Load":
        self._client = httpx.AsyncClient(
            trust_env=False, timeout=300, limits=httpx.Limits(max_connections=None)
        )
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sending.cancel()
        await asyncio.gather(*self._sent)
        await self._client.aclose()

    def check(self, *right: np.ndarray) -> Counter[int]:
        """Fail unless every reply is a right vector; returns how often each of `right` was the reply.

        During an upgrade there are two, each float32 [texts, dimensions].
        """
        assert self._sent, "nothing was sent"
        print(f"\n  {len(self._sent)} requests for {self._task}, the slowest took {self._longest:.1f} s")
        counts: Counter[int | str] = Counter()
        for number, task in enumerate(self._sent):
            answer = task.result()
            if isinstance(answer, str):
                counts[answer] += 1
                continue
            scores = [float(answer @ vectors[number % len(TEXTS)]) for vectors in right]
            best = max(range(len(right)), key=scores.__getitem__)
            counts[best if scores[best] > 0.9999 else "a wrong vector"] += 1
        assert all(isinstance(outcome, int) for outcome in counts), counts
        return Counter({int(outcome): count for outcome, count in counts.items()})

    async def _send(self) -> None:
        while True:
            self._sent.append(asyncio.create_task(self._ask(len(self._sent) % len(TEXTS))))
            await asyncio.sleep(1 / self._per_second)

    async def _ask(self, number: int) -> np.ndarray | str:
        body = {"task": self._task, "input": [TEXTS[number]]}
        began = time.monotonic()
        try:
            reply = await self._client.post(f"{self._url}/v1/embeddings", json=body)
        except httpx.HTTPError as error:
            return repr(error)
        if reply.status_code != 200:
            return f"{reply.status_code} {reply.text[:200]}"
        self._longest = max(self._longest, time.monotonic() - began)
        return np.array(reply.json()["data"][0]["embedding"], np.float32)
