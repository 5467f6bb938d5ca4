"""A deployment without a network, and a clock that needs no time."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np

from triptych.router.client import AsyncClient, Client
from triptych.router.client.core import Clock
from triptych.router.client.replies import Floats

URL = "http://deployment"
Call = Callable[..., Any]


def vector_of(item: Any, dimensions: int = 8) -> Floats:
    """A unit vector, different for each input."""
    source = json.dumps(item, sort_keys=True).encode()
    seed = int.from_bytes(hashlib.sha256(source).digest()[:8], "little")
    values = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return values / np.linalg.norm(values)


def matrix_of(items: Sequence[Any], dimensions: int = 8) -> Floats:
    """The vectors of inputs, as rows."""
    return np.stack([vector_of(item, dimensions) for item in items])


def base64_of(vector: Floats) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def reply_to(asked: dict[str, Any]) -> dict[str, Any]:
    """The API's reply, with entries in reverse order: only `index` tells them apart."""
    data: list[dict[str, Any]] = []
    for index, item in enumerate(asked["input"]):
        if asked.get("return_multivector"):
            rows = [base64_of(vector_of([item, token], 128)) for token in range(2 + index % 3)]
            data.append({"index": index, "embeddings": rows})
        else:
            data.append(entry(index, vector_of(item, asked.get("dimensions", 8))))
    return {"data": data[::-1]}


def refusal(status: int, code: str, detail: str = "no", headers: Any = None, **more: Any) -> httpx.Response:
    """An error in the API's shape."""
    content = {"detail": detail, "code": code, "request_id": "ab" * 16, **more}
    return httpx.Response(status, json=content, headers=headers)


def reply_with(*entries: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": list(entries)})


def entry(index: int, vector: Any) -> dict[str, Any]:
    return {"index": index, "embedding": base64_of(np.array(vector, np.float32))}


class Deployment:
    """Answers like the router, in vector space `space`. `script` has replies or exceptions that come first.

    `settings` are those of its clients. `asked` has the bodies of embedding requests, `busiest` the most
    concurrent requests.
    """

    def __init__(self, *script: httpx.Response | Exception, **settings: Any) -> None:
        self.script = list(script)
        self.settings = settings
        self.clock = FakeClock()
        self.requests: list[httpx.Request] = []
        self.asked: list[dict[str, Any]] = []
        self.busiest = 0
        self.space = "space"
        self._now = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The reply to one request."""
        self.requests.append(request)
        if self.script:
            reply = self.script.pop(0)
            if isinstance(reply, Exception):
                raise reply
            # A new one each time, since httpx lets only one kind of client read a reply.
            return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)
        if request.url.path == "/ready":
            spaces = {"text-matching": [self.space]}
            pools = {"code": "no replica"}
            return httpx.Response(503, json={"ready": False, "pools": pools, "vector_spaces": spaces})
        required = request.headers.get("x-require-vector-space")
        if required is not None and required != f"text-matching={self.space}":
            return refusal(412, "VECTOR_SPACE_MISMATCH")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": [{"id": "jina-embeddings-v4"}]})
        asked = json.loads(request.content)
        if request.url.path == "/v1/rerank":
            results = [
                {"index": index, "relevance_score": 1.0 - 0.1 * place}
                for place, index in enumerate(reversed(range(len(asked["documents"]))))
            ]
            return httpx.Response(200, json={"model": "m", "results": results[: asked.get("top_n")]})
        self.asked.append(asked)
        return self.embeddings(asked)

    def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
        """The reply to one request for embeddings."""
        return httpx.Response(200, json=reply_to(asked))

    async def answer_later(self, request: httpx.Request) -> httpx.Response:
        """Like `answer`, but later requests are answered sooner."""
        self._now += 1
        self.busiest = max(self.busiest, self._now)
        for _ in range(max(1, 20 - len(self.requests))):
            await asyncio.sleep(0)
        try:
            return self.answer(request)
        finally:
            self._now -= 1

    def client(self, **settings: Any) -> Client:
        """A client of it."""
        transport = httpx.MockTransport(self.answer)
        return Client(URL, transport=transport, clock=self.clock, **self.settings, **settings)

    def async_client(self, **settings: Any) -> AsyncClient:
        """An asynchronous client of it."""
        transport = httpx.MockTransport(self.answer_later)
        return AsyncClient(URL, transport=transport, clock=self.clock, **self.settings, **settings)


class FakeClock(Clock):
    """Sleeping takes no time; `slept` records the pauses. Chance is always `luck`."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0
        self.slept: list[float] = []
        self.luck = 1.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def chance(self) -> float:
        return self.luck

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


def sync_call(deployment: Deployment, name: str, *arguments: Any, **options: Any) -> Any:
    with deployment.client() as client:
        return getattr(client, name)(*arguments, **options)


def async_call(deployment: Deployment, name: str, *arguments: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with deployment.async_client(concurrency=4) as client:
            return await getattr(client, name)(*arguments, **options)

    return asyncio.run(run())
