"""Requests and checks of load tests over real HTTP, with workers that are right or wrong."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes.frames import vector_of
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.loadtests.checks import Checker
from triptych.loadtests.content.pictures import image
from triptych.loadtests.dialects import Dialect, Reply, Target, Unreadable, clocks
from triptych.loadtests.golden import GOLDEN_TEXTS, Golden
from triptych.loadtests.request import TASKS, Encoding, Request, Task
from triptych.loadtests.results import WRONG
from triptych.workers.shared.contract import POOLS, Document, Image, Item, Text
from triptych.workers.shared.families import V4

DIMENSIONS = 256
PICTURES = [image("seed", 1, 56, 56, "png"), image("seed", 2, 56, 56, "jpeg")]


def pools() -> list[FakeWorker]:
    return [FakeWorker(pool, dimensions=DIMENSIONS) for pool in POOLS]


def asked(*inputs: str | bytes, **fields: Any) -> Request:
    task = {"flow": "query", "task": "retrieval.query"}
    return Request(**task | {"inputs": list(inputs) or ["one", "zwei", "三"]} | fields)


class Asking:
    """Asks one address as the load generator does."""

    def __init__(self, address: str, client: httpx.AsyncClient, name: str = "jina") -> None:
        self._dialect = Dialect(Target(addresses={"": address}, dialect=name, model="jina-embeddings-v4"))  # type: ignore[arg-type]
        self._client = client

    async def post(self, request: Request) -> httpx.Response:
        assert self._dialect.unsupported(request) is None
        call = self._dialect.encode(request)
        return await self._client.post(call.url, content=call.body, headers=call.headers)

    async def ask(self, request: Request) -> Reply:
        response = await self.post(request)
        assert response.status_code == 200, response.text
        assert set(clocks(response.headers)) == {"router", "queue", "inference", "overhead"}
        return self._dialect.decode(request, response.content)

    async def verdict(self, request: Request, checker: Checker) -> str | None:
        """What the report says of it."""
        response = await self.post(request)
        if response.status_code != 200:
            return f"HTTP {response.status_code}"
        try:
            return checker.check(request, self._dialect.decode(request, response.content))
        except Unreadable:
            return f"{WRONG}unreadable"

    async def golden(self, *tasks: Task) -> Golden:
        """Learned one text at a time; all tasks by default."""
        golden = Golden("a calm deployment")
        for request in golden.requests():
            if not tasks or request.task in tasks:
                golden.learn(request, await self.ask(request))
        return golden


def asking(router: RunningRouter, name: str = "jina") -> Asking:
    return Asking(str(router.client.base_url), router.client, name)


def right(pool: str, item: Item) -> np.ndarray[Any, Any]:
    vector = vector_of(pool, item, DIMENSIONS)
    return np.frombuffer(vector.data, "<f4").reshape(vector.shape)


@pytest.mark.parametrize("task", TASKS)
async def test_texts_of_every_task(task: Task) -> None:
    workers = pools()
    pool, role = V4.routes[task]
    async with fake_workers(*workers), running_router(*workers) as router:
        for dimensions in (None, 64):
            request = asked(task=task, dimensions=dimensions)
            reply = await asking(router).ask(request)
            assert Checker().check(request, reply) is None
            assert reply.tokens is not None
            assert reply.tokens > 0
            for text, vector in zip(request.inputs, reply.vectors, strict=True):
                assert isinstance(text, str)
                item = Item(Text(text, role), dimensions=dimensions)
                np.testing.assert_array_equal(vector, right(pool, item))


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_images_multivectors_and_late_chunking(encoding: Encoding) -> None:
    workers = pools()
    chunks = ("A chapter.", "Another one.", "The end.")
    async with fake_workers(*workers), running_router(*workers) as router:
        requests = [
            asked("a text", *PICTURES, encoding=encoding),
            asked("a text", PICTURES[0], multivector=True, encoding=encoding),
            asked(*chunks, late_chunking=True, encoding=encoding, task="retrieval.passage"),
        ]
        replies = [await asking(router).ask(request) for request in requests]
    checker = Checker()
    for request, reply in zip(requests, replies, strict=True):
        assert checker.check(request, reply) is None
    images, many, parts = replies
    for vector, content in zip(images.vectors[1:], PICTURES, strict=True):
        np.testing.assert_array_equal(vector, right("retrieval", Item(Image(content))))
    text = Item(Text("a text", "query"), multivector=True)
    np.testing.assert_array_equal(many.vectors[0], right("retrieval", text))
    document = right("retrieval", Item(Document(chunks, "passage")))
    np.testing.assert_array_equal(np.stack(parts.vectors), document)


async def test_ranking() -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        request = asked(*"abcdefgh", kind="rerank", query="which letter")
        reply = await asking(router).ask(request)
    assert Checker().check(request, reply) is None
    assert len(reply.scores) == 8
    assert reply.indexes != list(range(8))


@pytest.mark.parametrize("name", ["openai", "vllm"])
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_router_understands_other_dialects(name: str, encoding: Encoding) -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        request = asked(encoding=encoding, dimensions=64)
        reply = await asking(router, name).ask(request)
    assert Checker().check(request, reply) is None
    assert reply.tokens


async def test_golden_vectors_match_in_batches_and_cut() -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        golden = await asking(router).golden()
        assert golden.complaints() == []
        checker = Checker(golden)
        for task, texts in GOLDEN_TEXTS.items():
            for dimensions in (None, 64):
                places = {number: number for number in range(len(texts))}
                request = asked(*texts, task=task, dimensions=dimensions, golden=places)
                assert await asking(router).verdict(request, checker) is None
        assert checker.compared == 2 * sum(map(len, GOLDEN_TEXTS.values()))


async def test_one_wrong_replica_of_two_is_found() -> None:
    workers = [FakeWorker(dimensions=DIMENSIONS) for _ in range(2)]
    async with fake_workers(*workers), running_router(*workers, lanes=1, batch_items=1) as router:
        checker = Checker(await asking(router).golden("retrieval.query"))
        workers[1].vectors_of = "code"
        texts = GOLDEN_TEXTS["retrieval.query"]
        requests = [asked(texts[number], golden={0: number}) for number in range(len(texts))] * 2
        verdicts = await asyncio.gather(*(asking(router).verdict(request, checker) for request in requests))
    assert set(verdicts) == {None, "wrong: golden"}
