"""The two clients. Only I/O: requests and replies are in their own modules, retries in `core`."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Self, TypeVar, Unpack

import httpx

from triptych.router.client import core, replies, requests
from triptych.router.client.core import Clock, Core, Retries, failures
from triptych.router.client.errors import TriptychError
from triptych.router.client.replies import Floats, OneSpace, RankedDocument, Readiness
from triptych.router.client.requests import Call, EmbedOptions, Inputs, Item, MultiOptions

CONCURRENCY = 8
# Most connections that httpx opens. It spends quadratic time on requests that wait for one.
CONNECTIONS = 100

_T = TypeVar("_T")
_W = TypeVar("_W")


class Client:
    """A deployment at `base_url`, such as http://127.0.0.1:8080.

    timeout: seconds for one request. The server stops working on it then.
    retries: retries of a request after 429, 502, 503, 504 or a lost connection. They are safe, since the same
        input always gives the same vector. Retry-After is honoured; otherwise pauses double.
    max_wait: seconds after which no retry starts.
    transport: replaces the network, for tests.

    Every method raises the errors in `triptych.router.client.errors`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = core.TIMEOUT_SECONDS,
        retries: int = core.RETRIES,
        max_wait: float = core.MAX_WAIT_SECONDS,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._core = Core(base_url, api_key, timeout, retries, max_wait, clock)
        self._transport = transport
        self._open()

    def embed(self, inputs: Inputs, **options: Unpack[EmbedOptions]) -> Floats:
        """Embed each input into one vector: float32 [n, d] in input order; [1, d] for a single input.

        More than 512 inputs or 48 MiB are sent as several requests, one after another. A PDF, `{"pdf": ...}`
        as the only input, gives one vector per page. A lone surrogate in a text is sent as U+FFFD.
        """
        one_space = OneSpace(options.get("vector_space"))
        found = []
        for part in requests.parts(inputs, options.get("late_chunking")):
            body = self._send(requests.embed_call(part, **options), one_space)
            found.append(replies.vectors(body, part, options.get("dimensions")))
        return replies.join(found)

    def embed_multi(self, inputs: Inputs, **options: Unpack[MultiOptions]) -> list[Floats]:
        """Embed each token into one vector: float32 [tokens, 128] per input, in input order."""
        one_space = OneSpace(options.get("vector_space"))
        found: list[Floats] = []
        for part in requests.parts(inputs):
            body = self._send(requests.embed_call(part, multivector=True, **options), one_space)
            found += replies.multivectors(body, part)
        return found

    def rerank(
        self, query: Item, documents: Iterable[Item], top_n: int | None = None, model: str | None = None
    ) -> list[RankedDocument]:
        """Rank documents by how well they answer `query`, best first; all, or the best `top_n`."""
        documents = requests.checked(documents, "documents")
        body = self._send(requests.rerank_call(query, documents, top_n, model))
        return replies.ranked(body, documents, top_n)

    def models(self) -> list[str]:
        """Names of the served models."""
        return replies.model_names(self._send(requests.MODELS))

    def ready(self) -> Readiness:
        """Whether every pool can answer, and which cannot. Asks once, without retries."""
        with failures():
            reply = self._request(requests.READY)
        return replies.readiness(reply.status_code, reply.headers, reply.content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call, one_space: OneSpace | None = None) -> bytes:
        retries = Retries(self._core)
        while True:
            try:
                with failures():
                    reply = self._request(call)
                return replies.accept(reply.status_code, reply.headers, reply.content, one_space)
            except TriptychError as error:
                pause = retries.pause(error)
            self._core.clock.sleep(pause)

    def _open(self) -> None:
        self._http = self._core.open(httpx.Client, self._transport)
        # Last, since other threads of a fork go by it.
        self._process = os.getpid()

    def _request(self, call: Call) -> httpx.Response:
        if self._process != os.getpid():
            # On a connection from before a fork, each process could read replies to the other.
            self._open()
        return self._http.request(call.method, call.path, content=call.body, headers=call.headers)


class AsyncClient:
    """Like `Client`, with `await`. A long list is sent as up to `concurrency` requests at a time."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = core.TIMEOUT_SECONDS,
        retries: int = core.RETRIES,
        max_wait: float = core.MAX_WAIT_SECONDS,
        concurrency: int = CONCURRENCY,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._core = Core(base_url, api_key, timeout, retries, max_wait, clock)
        self._concurrency = concurrency
        self._http = self._core.open(httpx.AsyncClient, transport)
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def embed(self, inputs: Inputs, **options: Unpack[EmbedOptions]) -> Floats:
        """Like `Client.embed`: float32 [n, d], in input order."""
        one_space = OneSpace(options.get("vector_space"))

        async def one(part: list[Item]) -> Floats:
            body = await self._send(requests.embed_call(part, **options), one_space)
            return replies.vectors(body, part, options.get("dimensions"))

        work = requests.parts(inputs, options.get("late_chunking"))
        return replies.join(await each(self._concurrency, work, one))

    async def embed_multi(self, inputs: Inputs, **options: Unpack[MultiOptions]) -> list[Floats]:
        """Like `Client.embed_multi`: float32 [tokens, 128] per input."""
        one_space = OneSpace(options.get("vector_space"))

        async def one(part: list[Item]) -> list[Floats]:
            body = await self._send(requests.embed_call(part, multivector=True, **options), one_space)
            return replies.multivectors(body, part)

        found = await each(self._concurrency, requests.parts(inputs), one)
        return [matrix for matrices in found for matrix in matrices]

    async def rerank(
        self, query: Item, documents: Iterable[Item], top_n: int | None = None, model: str | None = None
    ) -> list[RankedDocument]:
        """Like `Client.rerank`: best first."""
        documents = requests.checked(documents, "documents")
        body = await self._send(requests.rerank_call(query, documents, top_n, model))
        return replies.ranked(body, documents, top_n)

    async def models(self) -> list[str]:
        """Names of the served models."""
        return replies.model_names(await self._send(requests.MODELS))

    async def ready(self) -> Readiness:
        """Whether every pool can answer, and which cannot. Asks once, without retries."""
        with failures():
            reply = await self._request(requests.READY)
        return replies.readiness(reply.status_code, reply.headers, reply.content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _send(self, call: Call, one_space: OneSpace | None = None) -> bytes:
        retries = Retries(self._core)
        while True:
            try:
                with failures():
                    reply = await self._request(call)
                return replies.accept(reply.status_code, reply.headers, reply.content, one_space)
            except TriptychError as error:
                pause = retries.pause(error)
            await self._core.clock.sleep_async(pause)

    async def _request(self, call: Call) -> httpx.Response:
        async with self._free:
            return await self._http.request(call.method, call.path, content=call.body, headers=call.headers)


async def each(concurrency: int, work: Iterable[_W], one: Callable[[_W], Awaitable[_T]]) -> list[_T]:
    """The result of `one` for each of `work`, in order; at most `concurrency` run at a time.

    The first failure cancels the others. `work` is read no further ahead than it is done.
    """
    free = asyncio.Semaphore(concurrency)
    results: dict[int, _T] = {}
    number = 0

    async def in_turn(number: int, piece: _W) -> None:
        results[number] = await one(piece)

    try:
        async with asyncio.TaskGroup() as group:
            for number, piece in enumerate(work, 1):
                await free.acquire()
                group.create_task(in_turn(number, piece)).add_done_callback(lambda _: free.release())
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    if len(results) < number:
        # A task group counts a task that was cancelled alone as done.
        raise asyncio.CancelledError
    return [results[number] for number in sorted(results)]
