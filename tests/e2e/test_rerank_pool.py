"""A cross-encoder of its own behind the router, as an operator configures it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.server_processes import Deployment
from tests.cross_encoders import TEXTS, Score, write_published

QUERY = "Where does the river begin?"


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, Score]]:
    folder: Path = tmp_path_factory.mktemp("reranker")
    score = write_published(folder / "model")
    started = Deployment(
        folder / "log",
        folder / "state",
        DEPLOY_POOLS="rerank",
        DEPLOY_VARIANTS=f"rerank={folder / 'model'}",
        WORKER_DTYPE="float32",
    )
    try:
        yield started.wait_until_ready(), score
    finally:
        started.kill()


def test_its_scores_are_those_of_transformers(reranker: tuple[Deployment, Score]) -> None:
    deployment, score = reranker
    body = {"model": "jina-reranker-v2-base-multilingual", "query": QUERY, "documents": TEXTS, "top_n": 2}
    reply = httpx.post(deployment.url + "/v1/rerank", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    scores = [score(QUERY, text) for text in TEXTS]
    order = sorted(range(len(TEXTS)), key=lambda index: -scores[index])[:2]
    results = reply.json()["results"]
    assert [result["index"] for result in results] == order
    for result in results:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-4)
        assert result["document"] == {"text": TEXTS[result["index"]]}


def test_an_image_is_refused_by_name(reranker: tuple[Deployment, Score]) -> None:
    deployment, _ = reranker
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    body = {"query": QUERY, "documents": [TEXTS[0], {"image": image}]}
    reply = httpx.post(deployment.url + "/v1/rerank", json=body, timeout=60)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "body -> documents -> 1 -> image"
    assert "only a text query and text documents" in reply.json()["detail"]
