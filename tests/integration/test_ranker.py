"""jina-reranker-m0 gives the scores of transformers, for texts and images."""

import base64
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.engine_workers import Worker, workers
from tests.exit_status import exit_status
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.ranker_reference import RankerReference
from tests.vectors import array_of
from triptych.loadtests.server_processes import Router
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.shared.contract import Failure, Image, Item, Text, Vector
from triptych.workers.shared.families import RERANKER_M0

# Prompts of more than a step are prefilled in chunks.
MAX_TOKENS, BATCH_TOKENS = 2048, 256
BARS = {"float32": 1e-5, "bfloat16": 1e-2}
QUERY = Text("where does the river begin?", "query")
TEXTS = [
    "The river begins in the mountains.",
    "",
    "海滩上美丽的日落",
    "Rivers of the north, to the sea. " * 60,
]
PLACEHOLDER = "<|image_pad|>"
Input = Text | Image


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranker") / "m0"
    assert exit_status(cli, "tiny", folder, "--model", RERANKER_M0.name) == 0
    return folder


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> RankerReference:
    return RankerReference(checkpoint, MAX_TOKENS)


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """A worker for each dtype."""
    limits = {"max_tokens": MAX_TOKENS, "batch_tokens": BATCH_TOKENS, "kv_cache_gib": 0.5}
    settings = [{"model": checkpoint, "dtype": dtype, **limits} for dtype in BARS]
    with workers(tmp_path_factory.mktemp("ranker-workers"), *settings) as started:
        yield dict(zip(BARS, started, strict=True))


@pytest.fixture
def worker(served: dict[str, Worker]) -> Worker:
    return served["float32"]


def scores_of(worker: Worker, queries: list[Input], documents: list[Input]) -> list[list[Vector]]:
    """All documents for each query, in one batch."""
    pairs = product(range(len(queries)), documents)
    frames = worker.encode([Item(document, against=query) for query, document in pairs], queries=queries)
    vectors = [frame for frame in frames if isinstance(frame, Vector)]
    assert len(vectors) == len(frames), frames
    return [vectors[start : start + len(documents)] for start in range(0, len(vectors), len(documents))]


@pytest.mark.parametrize("dtype", BARS)
def test_scores_equal_those_of_transformers(
    dtype: str, served: dict[str, Worker], reference: RankerReference, images: list[bytes]
) -> None:
    seen = [Image(data) for data in images]
    queries: list[Input] = [QUERY, seen[0], seen[-1]]
    documents = [*(Text(text, "passage") for text in TEXTS), *seen]
    found = scores_of(served[dtype], queries, documents)
    all_scores = []
    for query, vectors in zip(queries, found, strict=True):
        for document, vector in zip(documents, vectors, strict=True):
            [score] = array_of(vector)
            assert score == pytest.approx(reference.score(query, document), abs=BARS[dtype])
            assert vector.tokens == len(reference.token_ids(query, document))
            assert vector.cut is None
            all_scores.append(score)
    # Otherwise any order would do.
    assert np.ptp(all_scores) > 3 * BARS[dtype]


def test_order_of_images_matters(reference: RankerReference, images: list[bytes]) -> None:
    """Otherwise the test above would pass with any order."""
    first, second = Image(images[0]), Image(images[-1])
    assert abs(reference.score(first, second) - reference.score(second, first)) > 1e-4


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("why", "a long document " * 2000),
        ("a long query " * 2000, "short"),
        ("why now? " * 400, "long " * 4000),
    ],
    ids=["document", "query", "both"],
)
def test_long_texts_are_cut_as_in_transformers(
    query: str, document: str, worker: Worker, reference: RankerReference
) -> None:
    pair = Text(query, "query"), Text(document, "passage")
    [[vector]] = scores_of(worker, [pair[0]], [pair[1]])
    assert array_of(vector)[0] == pytest.approx(reference.score(*pair), abs=1e-5)
    assert vector.tokens == len(reference.token_ids(*pair)) <= MAX_TOKENS
    assert vector.cut == 0


def test_long_text_beside_an_image_is_cut(worker: Worker, images: list[bytes]) -> None:
    image, text = Image(images[0]), Text("a long text " * 2000, "passage")
    for query, document in ((image, text), (text, image)):
        [[vector]] = scores_of(worker, [query], [document])
        assert vector.cut == 0
        assert MAX_TOKENS // 2 < vector.tokens <= MAX_TOKENS


def test_text_may_hold_a_placeholder_without_an_image(worker: Worker, reference: RankerReference) -> None:
    document = Text(f"it says {PLACEHOLDER}", "passage")
    [[vector]] = scores_of(worker, [QUERY], [document])
    assert array_of(vector)[0] == pytest.approx(reference.score(QUERY, document), abs=1e-5)


def test_broken_image_fails_alone(worker: Worker) -> None:
    items = [Item(Image(b"nothing"), against=0), Item(Text("fine", "passage"), against=0)]
    broken, good = worker.encode(items, queries=[QUERY])
    assert isinstance(broken, Failure)
    assert broken.code == "media_invalid"
    assert isinstance(good, Vector)


def test_router_ranks_texts_and_images(
    worker: Worker, reference: RankerReference, images: list[bytes], tmp_path: Path
) -> None:
    encoded = base64.b64encode(images[0]).decode()
    documents = [{"text": TEXTS[0]}, {"image": encoded}, TEXTS[2]]
    contents = [Text(TEXTS[0], "passage"), Image(images[0]), Text(TEXTS[2], "passage")]
    router = Router(tmp_path / "log", [("rerank-m0", worker.url)])
    try:
        with httpx.Client(base_url=router.wait_until_ready().url, timeout=GUARD_SECONDS) as client:
            body = {"model": "jinaai/jina-reranker-m0", "query": QUERY.text, "documents": documents}
            by_text = client.post("/v1/rerank", json=body)
            by_image = client.post("/v1/rerank", json=body | {"query": {"image": encoded}})
    finally:
        router.kill()
    for reply, query in ((by_text, QUERY), (by_image, Image(images[0]))):
        assert reply.status_code == 200, reply.text
        expected = [reference.score(query, content) for content in contents]
        results = reply.json()["results"]
        found = {result["index"]: result["relevance_score"] for result in results}
        assert list(found) == sorted(found, key=lambda index: -expected[index])
        assert [found[index] for index in range(len(contents))] == pytest.approx(expected, abs=1e-5)
        tokens = sum(len(reference.token_ids(query, content)) for content in contents)
        assert reply.json()["usage"] == {"total_tokens": tokens, "prompt_tokens": tokens}
