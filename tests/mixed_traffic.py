"""Requests of every kind and size at a fixed rate, whose replies are compared with those of a calm system."""

import asyncio
import base64
import io
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

# A text in another batch differs by rounding.
TOLERANCE = 1e-4
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Kind:
    """One kind of request; `weight` is its share of the traffic."""

    name: str
    weight: float
    bodies: Sequence[dict[str, Any]]
    path: str = "/v1/embeddings"
    accept: str = "application/json"


def kinds(longest: int) -> list[Kind]:
    """Kinds for the retrieval pool; the longest text has `longest` words."""
    passage, query = "retrieval.passage", "retrieval.query"
    texts = [f"passage {number} about the weather of the coming week" for number in range(500)]
    images = [_image(colour, "PNG") for colour in ("red", "green", "blue")]
    return [
        Kind("query", 60, [{"input": text, "task": query} for text in texts[:50]]),
        Kind("batch", 12, [{"input": texts[at : at + 50], "task": passage} for at in range(0, 400, 100)]),
        Kind("base64", 8, [{"input": texts[:8], "task": passage, "embedding_type": "base64"}]),
        Kind("npy", 4, [{"input": texts[:8], "task": passage}], accept="application/x-npy"),
        Kind("long text", 1, [{"input": "word " * longest, "task": passage}]),
        Kind("late chunking", 3, [{"input": texts[:6], "task": passage, "late_chunking": True}]),
        Kind("multi-vectors", 4, [{"input": texts[:4], "task": passage, "return_multivector": True}]),
        Kind("image", 4, [{"input": [{"image": image}], "task": passage} for image in images]),
        Kind("PDF", 2, [{"input": {"pdf": _image("navy", "PDF")}, "task": passage}]),
        Kind("rerank", 2, [{"query": texts[0], "documents": texts[:8]}], path="/v1/rerank"),
    ]


class Traffic:
    """An open loop of `kinds` at `url`. Call `learn` first, while nothing disturbs.

    `leaving` is the share of clients that leave early. `outcomes` counts (kind, code); the code is "ok",
    "left" or that of an error. `wrong` lists replies with other vectors than in a calm system.
    """

    def __init__(self, url: str, kinds: Sequence[Kind], seed: int, leaving: float = 0.0) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self._kinds = kinds
        self._leaving = leaving
        self._random = random.Random(seed)
        self._expected: dict[tuple[str, int], list[np.ndarray]] = {}
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )

    async def learn(self) -> None:
        """Send each request once, and remember its vectors."""
        for kind in self._kinds:
            for number, body in enumerate(kind.bodies):
                reply = await self._send(kind, body)
                assert reply.status_code == 200, f"{kind.name}: {reply.text}"
                self._expected[kind.name, number] = _vectors(reply)

    async def run(self, seconds: float, rate: float) -> None:
        """Send `rate` requests a second for `seconds`, and wait for all replies."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * rate)):
                await asyncio.sleep(start + number / rate - loop.time())
                [kind] = self._random.choices(self._kinds, [kind.weight for kind in self._kinds])
                group.create_task(self._ask(kind, self._random.randrange(len(kind.bodies))))

    async def _ask(self, kind: Kind, number: int) -> None:
        leaves = self._random.random() < self._leaving
        try:
            async with asyncio.timeout(self._random.uniform(0, 0.05) if leaves else None):
                reply = await self._send(kind, kind.bodies[number])
        except TimeoutError:
            self.outcomes[kind.name, "left"] += 1
            return
        if reply.status_code != 200:
            self.outcomes[kind.name, reply.json()["code"]] += 1
            return
        self.outcomes[kind.name, "ok"] += 1
        found, expected = _vectors(reply), self._expected[kind.name, number]
        if len(found) != len(expected) or not all(
            one.shape == other.shape and np.allclose(one, other, atol=TOLERANCE)
            for one, other in zip(found, expected, strict=True)
        ):
            self.wrong.append(f"{kind.name} {number}: {reply.headers.get('x-request-id')}")

    async def _send(self, kind: Kind, body: dict[str, Any]) -> httpx.Response:
        return await self._client.post(kind.path, json=body, headers={"accept": kind.accept})

    @property
    def codes(self) -> dict[str, int]:
        """Number of requests by code."""
        return dict(Counter(code for _, code in self.outcomes.elements()))

    async def close(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def meanwhile(*endless: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `endless` during the block; fails if one of them has ended."""
    tasks = [asyncio.create_task(each) for each in endless]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _vectors(reply: httpx.Response) -> list[np.ndarray]:
    """All vectors of a reply in order, or the scores in order of the documents."""
    if reply.headers["content-type"] == "application/x-npy":
        return list(np.load(io.BytesIO(reply.content)))
    content = reply.json()
    if "results" in content:
        ranked = sorted(content["results"], key=lambda result: result["index"])
        return [np.array([result["relevance_score"] for result in ranked])]
    found = []
    for entry in content["data"]:
        value = entry.get("embedding", entry.get("embeddings"))
        binary = isinstance(value, str)
        found.append(np.frombuffer(base64.b64decode(value), "<f4") if binary else np.array(value))
    return found


def _image(colour: str, form: str) -> str:
    """A picture, or a PDF of one page, in base64."""
    file = io.BytesIO()
    Image.new("RGB", (224, 224), colour).save(file, form)
    return base64.b64encode(file.getvalue()).decode()
