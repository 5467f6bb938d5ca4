"""Scores of documents against a query: late interaction in the worker of a variant, and a cross-encoder."""

from itertools import permutations
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.cross_encoders import CONTEXT, TEXTS, Score, write_bert, write_published
from tests.engine_workers import Worker
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.integration.conftest import CrossEncoders
from tests.vectors import array_of
from triptych.loadtests.server_processes import Router
from triptych.workers.shared.contract import Failure, Image, Item, Text, Vector

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
QUERY = Text("where does the river begin", "query")
DOCUMENTS = [
    "The river begins in the mountains.",
    "A recipe for bread.",
    "Rivers of the north, from their beginnings to the sea: a long list of names " * 20,
    "",
]


def test_score_is_the_mean_of_the_best_matches(worker: Worker, images: list[bytes]) -> None:
    contents = [*(Text(text, "passage") for text in DOCUMENTS), Image(images[0])]
    vectors = worker.encode([Item(content, multivector=True) for content in [QUERY, *contents]])
    query, *documents = map(array_of, vectors)
    scores = worker.encode([Item(content, against=0) for content in contents], queries=[QUERY])
    for score, document, vector in zip(scores, documents, vectors[1:], strict=True):
        assert isinstance(score, Vector)
        expected = (query @ document.T).max(axis=1).mean()
        np.testing.assert_allclose(array_of(score), [expected], atol=1e-5)
        assert score.tokens == vector.tokens
        assert score.query_tokens == len(query)


@pytest.fixture(params=[write_published, write_bert])
def cross_encoder(request: pytest.FixtureRequest, cross_encoders: CrossEncoders) -> tuple[Worker, Score]:
    return cross_encoders[request.param]


def test_scores_equal_those_of_transformers(cross_encoder: tuple[Worker, Score]) -> None:
    worker, score = cross_encoder
    frames = worker.encode([Item(Text(text, "passage"), against=0) for text in DOCUMENTS], queries=[QUERY])
    found = np.concatenate([array_of(frame) for frame in frames])
    expected = [score(QUERY.text, text) for text in DOCUMENTS]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.01, "otherwise any order would do"
    assert [frame.cut for frame in frames if isinstance(frame, Vector)] == [None] * len(DOCUMENTS)


def test_pair_of_the_whole_context_is_one_window(cross_encoder: tuple[Worker, Score]) -> None:
    worker, score = cross_encoder
    # Each letter x is a token.
    texts = ["x" * length for length in range(CONTEXT)]
    frames = worker.encode([Item(Text(text, "passage"), against=0) for text in texts], queries=[QUERY])
    tokens = [frame.tokens for frame in frames if isinstance(frame, Vector)]
    longest = texts[tokens.index(CONTEXT)]
    assert tokens[: len(longest) + 1] == list(range(tokens[0], CONTEXT + 1))
    assert tokens[len(longest) + 1] > CONTEXT, "a longer document is two windows"
    found = [float(array_of(frame)[0]) for frame in frames]
    np.testing.assert_allclose(found, [score(QUERY.text, text) for text in texts], atol=1e-5)


def test_best_window_of_a_long_document_counts(cross_encoder: tuple[Worker, Score]) -> None:
    worker, score = cross_encoder
    pairs = [(one * 20, other) for one, other in permutations(filter(None, DOCUMENTS), 2)]
    filler, passage = max(
        pairs, key=lambda pair: score(QUERY.text, "".join(pair)) - score(QUERY.text, pair[0])
    )
    items = [Item(Text(text, "passage"), against=0) for text in (filler, filler + passage)]
    alone, followed = (float(array_of(frame)[0]) for frame in worker.encode(items, queries=[QUERY]))
    assert followed > alone + 0.01
    assert followed == pytest.approx(score(QUERY.text, filler + passage), abs=1e-5)


def test_image_is_refused_alone(cross_encoder: tuple[Worker, Score], images: list[bytes]) -> None:
    worker, _ = cross_encoder
    items = [Item(Image(images[0]), against=0), Item(Text(DOCUMENTS[0], "passage"), against=0)]
    image, good = worker.encode(items, queries=[QUERY])
    assert isinstance(image, Failure)
    assert image.code == "unsupported"
    assert isinstance(good, Vector)


def test_router_ranks_with_a_cross_encoder(cross_encoders: CrossEncoders, tmp_path: Path) -> None:
    worker, score = cross_encoders[write_published]
    router = Router(tmp_path / "log", [("rerank", worker.url)])
    body = {"model": "jina-reranker-v2-base-multilingual", "query": QUERY.text, "top_n": 2}
    try:
        with httpx.Client(base_url=router.wait_until_ready().url, timeout=GUARD_SECONDS) as client:
            reply = client.post("/v1/rerank", json=body | {"documents": TEXTS})
            refused = client.post("/v1/rerank", json=body | {"documents": [TEXTS[0], {"image": PIXEL}]})
    finally:
        router.kill()
    assert reply.status_code == 200, reply.text
    scores = {text: score(QUERY.text, text) for text in TEXTS}
    results = reply.json()["results"]
    found = {result["document"]["text"]: result["relevance_score"] for result in results}
    assert list(found) == sorted(TEXTS, key=lambda text: -scores[text])[:2]
    assert list(found.values()) == pytest.approx([scores[text] for text in found], abs=1e-4)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "body -> documents -> 1 -> image"
