"""`POST /v1/rerank` in the router: the pool it uses, and the order of the results."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes.frames import vector_of
from tests.unit.router.apps import Workers
from tests.unit.router.catalogs import SETTINGS
from triptych.router.api.rerank import parse_rerank, plan_rerank
from triptych.router.pool.served import Served
from triptych.workers.shared.contract import Item, Text
from triptych.workers.shared.families import RERANKER_V2, V4, Family

QUERY = "which one"
DOCUMENTS = ["first", {"text": "second"}, "third", "fourth"]
TEXTS = ["first", "second", "third", "fourth"]


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/rerank", json=body)


async def test_documents_are_best_first(client: httpx.AsyncClient, workers: Workers) -> None:
    reply = await post(client, query=QUERY, documents=DOCUMENTS)
    assert reply.status_code == 200, reply.text
    assert set(workers.pools) == {"retrieval"}
    items = [Item(Text(text, "passage"), truncate=True) for text in TEXTS]
    vectors = [vector_of("retrieval", item, 2048, Text(QUERY, "query")) for item in items]
    scores = [float(np.frombuffer(vector.data, np.float32)[0]) for vector in vectors]
    order = sorted(range(4), key=lambda index: -scores[index])
    assert reply.json()["results"] == [
        {
            "index": index,
            "relevance_score": pytest.approx(scores[index]),
            "document": {"text": TEXTS[index]},
        }
        for index in order
    ]
    assert reply.json()["usage"]["total_tokens"] > 0


async def test_top_n_and_return_documents(client: httpx.AsyncClient) -> None:
    reply = await post(client, query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=False)
    results = reply.json()["results"]
    assert len(results) == 2
    assert all(set(result) == {"index", "relevance_score"} for result in results)
    assert len((await post(client, query=QUERY, documents=DOCUMENTS, top_n=9)).json()["results"]) == 4


async def test_null_means_default(client: httpx.AsyncClient) -> None:
    absent = await post(client, query=QUERY, documents=DOCUMENTS)
    null = await post(client, query=QUERY, documents=DOCUMENTS, model=None, top_n=None, return_documents=None)
    assert null.status_code == 200, null.text
    assert null.json() == absent.json()
    assert all("document" in result for result in null.json()["results"])


async def test_query_is_counted_once(client: httpx.AsyncClient) -> None:
    one = (await post(client, query=QUERY, documents=["first"])).json()["usage"]["total_tokens"]
    two = (await post(client, query=QUERY, documents=["first", "first"])).json()["usage"]["total_tokens"]
    assert two - one == vector_of("retrieval", Item(Text("first", "passage")), 2048).tokens


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"documents": ["a"]}, "body -> query"),
        ({"query": "a", "documents": []}, "body -> documents"),
        ({"query": "a", "documents": ["b", 3]}, "body -> documents -> 1"),
        ({"query": "a", "documents": [{"text": "b", "image": "c"}]}, "body -> documents -> 0"),
        ({"query": ["a"], "documents": ["b"]}, "body -> query"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "body -> top_n"),
        ({"query": "a", "documents": ["b"], "model": "m" * 257}, "body -> model"),
    ],
)
async def test_wrong_field_is_named(client: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    reply = await post(client, **body)
    assert reply.status_code == 422
    assert [fault["field"] for fault in reply.json()["errors"]] == [field]


async def test_bad_image_is_named(client: httpx.AsyncClient) -> None:
    reply = await post(client, query="a", documents=["b", {"image": "not base64 at all!"}])
    assert reply.status_code == 400
    assert "body -> documents -> 1 -> image" in reply.json()["detail"]


@pytest.mark.parametrize(("family", "cost"), [(V4, V4.positions), (RERANKER_V2, 20_003 + 3 + 1)])
def test_long_document_costs_what_is_read(family: Family, cost: int) -> None:
    size = 4 * (20_000 if family.cross_encoder else 2 * V4.positions)
    body = json.dumps({"query": "whom", "documents": ["a" * size]}).encode()
    _, document = plan_rerank(parse_rerank(body, 64), SETTINGS, Served(family), None)
    assert document.cost == cost
