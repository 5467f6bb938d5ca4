"""Both clients against a real router with a fake worker."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.router.client import AsyncClient, Client, Image
from triptych.router.client.errors import Invalid, TokenLimitExceeded

TEXTS = [f"text {number}" for number in range(600)]


@pytest.fixture
async def router() -> AsyncIterator[RunningRouter]:
    worker = FakeWorker("retrieval")
    async with fake_workers(worker), running_router(worker) as router:
        yield router


def png() -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


async def test_clients_return_router_vectors(router: RunningRouter) -> None:
    url = str(router.client.base_url)
    inputs = [*TEXTS, Image.from_bytes(png())]
    plain = [*TEXTS, {"image": base64.b64encode(png()).decode()}]
    right: list[list[float]] = []
    for start in (0, 512):
        reply = await router.post(input=plain[start : start + 512], dimensions=64)
        right += [entry["embedding"] for entry in reply.json()["data"]]

    def in_a_thread() -> np.ndarray:
        with Client(url) as client:
            return client.embed(inputs, task="retrieval.query", dimensions=64)

    async with AsyncClient(url) as client:
        found = await client.embed(inputs, task="retrieval.query", dimensions=64)
        np.testing.assert_array_equal(found, np.array(right, np.float32))
        np.testing.assert_array_equal(await asyncio.to_thread(in_a_thread), found)
        multi = await client.embed_multi(["one", "two"], task="retrieval.passage")
        assert [matrix.shape[1] for matrix in multi] == [128, 128]
        assert await client.models() == ["jina-embeddings-v4"]
        readiness = await client.ready()
        assert readiness
        assert readiness.pools["retrieval"] == "ready"


async def test_clients_return_router_ranking(router: RunningRouter) -> None:
    documents = [*TEXTS[:5], Image.from_bytes(png())]
    async with AsyncClient(str(router.client.base_url)) as client:
        ranked = await client.rerank("a query", documents)
        assert sorted(one.index for one in ranked) == list(range(6))
        assert [one.document for one in ranked] == [documents[one.index] for one in ranked]
        scores = [one.relevance_score for one in ranked]
        assert scores == sorted(scores, reverse=True)
        assert await client.rerank("a query", documents, top_n=2) == ranked[:2]


async def test_router_errors_keep_their_details(router: RunningRouter) -> None:
    async with AsyncClient(str(router.client.base_url)) as client:
        with pytest.raises(Invalid) as invalid:
            await client.embed("a", task="retrieval.query", dimensions=4096)
        assert [fault["field"] for fault in invalid.value.errors] == ["body -> dimensions"]
        assert len(invalid.value.request_id or "") == 32
        with pytest.raises(TokenLimitExceeded):
            await client.embed("!token_limit", task="retrieval.query")
