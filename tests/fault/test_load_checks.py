"""What load tests ask and check, over real HTTP: our router with workers that are right, lie or misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import httpx
import numpy as np
import orjson
import pytest
from aiohttp import web

from loadtests.checks import Checker
from loadtests.content.images import image
from loadtests.dialects import Reply, Unreadable, dialect
from loadtests.golden import GOLDEN_TEXTS, Golden
from loadtests.request import TASKS, Encoding, Request, Task
from loadtests.results import WRONG
from router.api import embeddings
from router.api.plan import ROUTES
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, Mode, fake_workers, vector_of
from workers.shared.contract import POOLS, Document, Image, Item, Text

DIMENSIONS = 256
PICTURES = [image("seed", 1, 56, 56, "png"), image("seed", 2, 56, 56, "jpeg")]
# Those that end by themselves in replies that may be good.
PATIENT = ("healthy", "held", "slow", "flaky")
# Those that end with the time of the request.
ENDLESS = ("hanging", "hanging in the body", "overloaded")


def pools() -> list[FakeWorker]:
    return [FakeWorker(pool, dimensions=DIMENSIONS) for pool in POOLS]


def asked(*inputs: str | bytes, **fields: Any) -> Request:
    task = {"flow": "query", "task": "retrieval.query"}
    return Request(**task | {"inputs": list(inputs) or ["one", "zwei", "三"]} | fields)


class Asking:
    """Asks one address as the load generator does."""

    def __init__(self, address: str, client: httpx.AsyncClient, name: str = "jina") -> None:
        self._dialect = dialect(name, {"": address}, model="jina-embeddings-v4", key=None)
        self._client = client

    async def post(self, request: Request) -> httpx.Response:
        assert self._dialect.unsupported(request) is None
        call = self._dialect.encode(request)
        return await self._client.post(call.url, content=call.body, headers=call.headers)

    async def ask(self, request: Request) -> Reply:
        response = await self.post(request)
        assert response.status_code == 200, response.text
        assert set(self._dialect.clocks(response.headers)) == {"router", "queue", "inference", "overhead"}
        return self._dialect.decode(request, response.content)

    async def verdict(self, request: Request, checker: Checker) -> str | None:
        """What becomes of it, as the report has it."""
        response = await self.post(request)
        if response.status_code != 200:
            return f"HTTP {response.status_code}"
        try:
            return checker.check(request, self._dialect.decode(request, response.content))
        except Unreadable:
            return f"{WRONG}unreadable"

    async def golden(self, *tasks: Task) -> Golden:
        """Learned one text at a time; of all tasks if none is named."""
        golden = Golden("a calm deployment")
        for request in golden.requests():
            if not tasks or request.task in tasks:
                golden.learn(request, await self.ask(request))
        return golden


def asking(router: RunningRouter, name: str = "jina") -> Asking:
    return Asking(str(router.client.base_url), router.client, name)


@asynccontextmanager
async def between(router: RunningRouter, change: Callable[[dict[str, Any]], None]) -> AsyncIterator[Asking]:
    """A server that passes everything on, and changes the replies."""

    async def handle(request: web.Request) -> web.Response:
        reply = await router.client.post(request.path, content=await request.read())
        document = reply.json()
        change(document)
        return web.Response(body=orjson.dumps(document), headers={"x-total-time": "1"})

    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Asking(f"http://127.0.0.1:{runner.addresses[0][1]}", router.client)
    finally:
        await runner.cleanup()


def right(pool: str, item: Item) -> np.ndarray[Any, Any]:
    vector = vector_of(pool, item, DIMENSIONS)
    return np.frombuffer(vector.data, "<f4").reshape(vector.shape)


@pytest.mark.parametrize("encoding", ["base64", "float"])
@pytest.mark.parametrize("task", TASKS)
async def test_texts_of_every_task_come_back_right(task: Task, encoding: Encoding) -> None:
    workers = pools()
    pool, role = ROUTES[task]
    async with fake_workers(*workers), running_router(*workers) as router:
        for dimensions in (None, 64):
            request = asked(task=task, encoding=encoding, dimensions=dimensions)
            reply = await asking(router).ask(request)
            assert Checker().check(request, reply) is None
            assert reply.tokens is not None
            assert reply.tokens > 0
            for text, vector in zip(request.inputs, reply.vectors, strict=True):
                assert isinstance(text, str)
                item = Item(Text(text, role), dimensions=dimensions)
                np.testing.assert_array_equal(vector, right(pool, item))


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_images_multi_vectors_and_late_chunking_come_back_right(encoding: Encoding) -> None:
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


async def test_a_ranking_comes_back_complete_and_in_order() -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        request = asked(*"abcdefgh", kind="rerank", query="which letter")
        reply = await asking(router).ask(request)
    assert Checker().check(request, reply) is None
    assert len(reply.scores) == 8
    assert reply.indexes != list(range(8))


@pytest.mark.parametrize("name", ["openai", "vllm"])
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_our_router_understands_the_other_dialects_too(name: str, encoding: Encoding) -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router:
        request = asked(encoding=encoding, dimensions=64)
        reply = await asking(router, name).ask(request)
    assert Checker().check(request, reply) is None
    assert reply.tokens


@pytest.mark.parametrize("encoding", ["base64", "float"])
@pytest.mark.parametrize("mode", [mode for mode in get_args(Mode) if mode not in PATIENT])
async def test_no_misbehaviour_of_a_worker_passes_for_a_good_reply(
    mode: Mode, encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = FakeWorker(dimensions=DIMENSIONS)
    texts = GOLDEN_TEXTS["retrieval.query"]
    request = asked(*texts, golden={number: number for number in range(len(texts))}, encoding=encoding)
    async with fake_workers(worker), running_router(worker) as router:
        checker = Checker(await asking(router).golden("retrieval.query"))
        worker.mode = mode
        if mode in ENDLESS:
            monkeypatch.setattr(embeddings, "seconds_of", lambda *_: 0.5)
        verdict = await asking(router).verdict(request, checker)
    # All vectors were there, and right, before the reply went wrong.
    assert verdict in (
        {None} if mode in ("same index twice", "endless") else {"HTTP 500", "HTTP 503", "HTTP 504"}
    )


def drop(document: dict[str, Any]) -> None:
    document["data"].pop()


def renumber(document: dict[str, Any]) -> None:
    document["data"].reverse()


def swap(document: dict[str, Any]) -> None:
    first, second, *_ = document["data"]
    first["embedding"], second["embedding"] = second["embedding"], first["embedding"]


def shorten(document: dict[str, Any]) -> None:
    document["data"][1]["embedding"].pop()


def double(document: dict[str, Any]) -> None:
    document["data"][1]["embedding"] = [2 * value for value in document["data"][1]["embedding"]]


def repeat(document: dict[str, Any]) -> None:
    for entry in document["data"]:
        entry["embedding"] = document["data"][0]["embedding"]


def blank(document: dict[str, Any]) -> None:
    document["data"][1]["embedding"][3] = None


def forget(document: dict[str, Any]) -> None:
    del document["data"]


def count_nothing(document: dict[str, Any]) -> None:
    document["usage"] = {}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda _: None, None),
        (drop, "wrong: count"),
        (renumber, "wrong: order"),
        (swap, "wrong: golden"),
        (repeat, "wrong: golden"),
        (shorten, "wrong: dimension"),
        (double, "wrong: norm"),
        (blank, "wrong: unreadable"),
        (forget, "wrong: unreadable"),
        (count_nothing, "wrong: tokens"),
    ],
)
async def test_a_server_that_answers_200_with_something_else_is_found_out(
    change: Callable[[dict[str, Any]], None], verdict: str | None
) -> None:
    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router, between(router, change) as lying:
        checker = Checker(await asking(router).golden("retrieval.query"))
        text = GOLDEN_TEXTS["retrieval.query"][6]
        request = asked("one", text, "three", golden={1: 6}, encoding="float")
        assert await lying.verdict(request, checker) == verdict


@pytest.mark.parametrize(("tell", "kind"), [("results", "order"), ("scores", "order"), ("less", "count")])
async def test_a_ranking_that_is_none_is_found_out(tell: str, kind: str) -> None:
    def change(document: dict[str, Any]) -> None:
        results = document["results"]
        match tell:
            case "results":
                results[0]["index"] = results[1]["index"]
            case "scores":
                results.reverse()
            case "less":
                results.pop()

    workers = pools()
    async with fake_workers(*workers), running_router(*workers) as router, between(router, change) as lying:
        request = asked(*"abcd", kind="rerank", query="which letter")
        assert await lying.verdict(request, Checker()) == f"{WRONG}{kind}"


async def test_golden_vectors_of_a_calm_deployment_come_back_in_batches_and_cut() -> None:
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


async def test_two_pools_that_have_changed_places_are_named_and_their_replies_wrong() -> None:
    workers = pools()
    retrieval, _, code = workers
    async with fake_workers(*workers), running_router(*workers) as router:
        known = await asking(router).golden()
        retrieval.vectors_of, code.vectors_of = code.vectors_of, retrieval.vectors_of
        found = known.compare(await asking(router).golden())
        assert len(found) == 4
        assert any("code.query answers with the vectors of retrieval.query" in line for line in found)
        verdicts: dict[Task, str | None] = {}
        for task, texts in GOLDEN_TEXTS.items():
            request = asked(texts[0], task=task, golden={0: 0})
            verdicts[task] = await asking(router).verdict(request, Checker(known))
    matching = verdicts.pop("text-matching")
    assert matching is None
    assert set(verdicts.values()) == {"wrong: golden"}


async def test_a_pool_that_serves_another_pools_variant_is_named_without_any_file() -> None:
    workers = pools()
    workers[-1].vectors_of = "retrieval"
    async with fake_workers(*workers), running_router(*workers) as router:
        found = (await asking(router).golden()).complaints()
    assert len(found) == 2
    assert any("retrieval.query and code.query answer with the same vectors" in line for line in found)


async def test_one_replica_of_two_that_serves_another_variant_is_found() -> None:
    workers = [FakeWorker(dimensions=DIMENSIONS) for _ in range(2)]
    async with fake_workers(*workers), running_router(*workers, lanes=1, batch_items=1) as router:
        checker = Checker(await asking(router).golden("retrieval.query"))
        workers[1].vectors_of = "code"
        texts = GOLDEN_TEXTS["retrieval.query"]
        requests = [asked(texts[number], golden={0: number}) for number in range(len(texts))] * 2
        verdicts = await asyncio.gather(*(asking(router).verdict(request, checker) for request in requests))
    assert set(verdicts) == {None, "wrong: golden"}
