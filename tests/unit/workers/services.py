"""A worker's service without an engine, a client for its app, and a tokenizer that is watched."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from tokenizers import Tokenizer

from tests.fakes.frames import vector_of
from tests.fakes.worker import FakeWorker
from tests.metrics import parse, value
from triptych.workers.asgi import WorkerApp
from triptych.workers.encoding import Job
from triptych.workers.item_error import ItemError
from triptych.workers.shared.contract import METRICS_PATH, EncodeRequest, Item, Text, Vector, encode_request


@dataclass
class FakeEngine:
    """What a service reports of its engine."""

    dead: bool = False
    busy: bool = False
    steps: int = 0


class FakeService:
    """Returns a vector per item, moved by `drift` of its norm, once `gate` is set.

    A text `bad` is refused. From `fails_after` encoded items on, the engine raises; it dies with `dies`.
    """

    info = FakeWorker().info
    tolerance = 0.005

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.canaries = {"text": EncodeRequest([Item(Text("a canary", "query"))])}
        self.drift = 0.0
        self.fails_after: int | None = None
        self.dies = False
        self.waiting = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        return [self.job(item) for item in request.items]

    def job(self, item: Item) -> Job | ItemError:
        if item.content == Text("bad", "query"):
            return ItemError("token_limit", "too long")
        return lambda: self.encode(item)

    async def encode(self, item: Item) -> Vector:
        self.waiting.set()
        await self.gate.wait()
        if self.fails_after is not None and self.engine.steps >= self.fails_after:
            self.engine.dead = self.dies
            raise RuntimeError("the vector has NaN")
        self.engine.steps += 1
        vector = vector_of("retrieval", item, 8)
        values = np.frombuffer(vector.data, np.float32).copy()
        values[0] += self.drift
        return Vector(vector.index, vector.tokens, vector.shape, values.tobytes())

    async def warm_up(self) -> None: ...


class Watched:
    """A tokenizer; remembers the most characters at once, and fails for texts with `surprise`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.most = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch(self, texts: list[str] | list[tuple[str, str]], **options: Any) -> Any:
        self.most = max(self.most, sum(len("".join(text)) for text in texts))
        if any("surprise" in text for text in texts):
            raise RuntimeError("surprise")
        return self._tokenizer.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


@asynccontextmanager
async def client_of(app: WorkerApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        yield client


def batch(*texts: str) -> bytes:
    return encode_request(EncodeRequest([Item(Text(text, "query")) for text in texts]))


async def metric(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """A sample `triptych_worker_<name>` of the metrics page."""
    page = parse((await client.get(METRICS_PATH)).text)
    return value(page, f"triptych_worker_{name}", **labels)
