"""Clients of v2 and v3 models as published, but for the address, against v3 pools and against the aliases."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from chromadb.utils.embedding_functions import JinaEmbeddingFunction

from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.workers.shared.contract import Document, Text
from triptych.workers.shared.families import V3, V4, Family

CHUNKS = ["Berlin is the capital and largest city of Germany.", "The city has a rich history."]


@asynccontextmanager
async def serving(family: Family) -> AsyncIterator[tuple[RunningRouter, dict[str, FakeWorker]]]:
    """A router that knows the old names, in front of all pools of a family."""
    workers = {pool: FakeWorker(pool, family.dimensions) for pool in family.pools}
    async with (
        fake_workers(*workers.values()),
        running_router(*workers.values(), old_model_names=True) as router,
    ):
        yield router, workers


async def by_chroma(router: RunningRouter, texts: list[str], **options: object) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        function = JinaEmbeddingFunction(api_key="any", **options)  # type: ignore[arg-type]
    function._api_url = str(router.client.base_url.join("/v1/embeddings"))
    return await asyncio.to_thread(function, texts)  # type: ignore[arg-type]


async def test_chroma_s_default_model_gets_768_values_of_one_pool() -> None:
    async with serving(V4) as (router, workers):
        vectors = await by_chroma(router, ["one", "two"])
        assert [vector.shape for vector in vectors] == [(768,)] * 2
        assert [item.content for item in workers["retrieval"].items] == [
            Text("one", "passage"),
            Text("two", "passage"),
        ]


@pytest.mark.parametrize(
    ("family", "pool", "role"), [(V3, "v3.text-matching", "plain"), (V4, "text-matching", "query")]
)
async def test_chroma_s_late_chunking_with_v3(family: Family, pool: str, role: str) -> None:
    options = {"model_name": "jina-embeddings-v3", "late_chunking": True, "task": "text-matching"}
    async with serving(family) as (router, workers):
        vectors = await by_chroma(router, CHUNKS, **options)
        assert [vector.shape for vector in vectors] == [(1024,)] * 2
        [item] = workers[pool].items
        assert isinstance(item.content, Document)
        assert (item.content.chunks, item.content.role) == (tuple(CHUNKS), role)
