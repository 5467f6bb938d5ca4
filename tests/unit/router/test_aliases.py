"""The operator's aliases for the model, for clients of other models."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.unit.router.apps import Workers, client_of_app

ALIASES = {
    "jina-embeddings-v3": {"tasks": {"classification": "text-matching", "separation": "code.query"}},
    "old": {},
}


@pytest.fixture
async def aliased(workers: Workers) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_app(workers, model_aliases=ALIASES) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "pool"),
    [
        ({"model": "jina-embeddings-v3", "task": "separation"}, "code"),
        ({"task": "classification", "model": "jina-embeddings-v3"}, "text-matching"),
        ({"model": "jina-embeddings-v3", "task": "retrieval.query"}, "retrieval"),
        ({"model": "old"}, "text-matching"),
        ({"model": "old", "task_type": "code.passage"}, "code"),
        ({"model": "jina-embeddings-v4", "task": "code.query"}, "code"),
        ({"model": "jina-embeddings-v3", "input": [{"text": "a", "task": "separation"}]}, "code"),
    ],
)
async def test_alias_has_its_own_task_names(
    aliased: httpx.AsyncClient, workers: Workers, body: dict[str, Any], pool: str
) -> None:
    reply = await aliased.post("/v1/embeddings", json={"input": "a", **body})
    assert reply.status_code == 200, reply.text
    assert workers.pools == [pool]


@pytest.mark.parametrize("model", ["jina-embeddings-v4", "old", None])
async def test_task_names_need_their_alias(aliased: httpx.AsyncClient, model: str | None) -> None:
    reply = await aliased.post("/v1/embeddings", json={"model": model, "input": "a", "task": "separation"})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "body -> task"


@pytest.mark.parametrize("name", ALIASES)
async def test_model_is_found_by_alias(aliased: httpx.AsyncClient, name: str) -> None:
    reply = await aliased.get(f"/v1/models/{name}")
    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == name
