"""chromadb with its own `JinaEmbeddingFunction`, of which only the address is changed."""

import io
import warnings
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import chromadb
import httpx
import numpy as np
import pytest
from chromadb.utils.embedding_functions import JinaEmbeddingFunction
from PIL import Image

from tests.e2e.test_requests import assert_same, data_uri, embed, png
from tests.vectors import Array, cosine
from triptych.loadtests.server_processes import Deployment

DOCUMENTS = [
    "Rye bread keeps for a week.",
    "The lighthouse was built in 1887 of grey stone.",
    "A binary heap gives its smallest element first.",
    "Swifts sleep while they fly.",
]


@pytest.fixture
def database() -> chromadb.ClientAPI:
    return chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))


@pytest.fixture(autouse=True)
def _no_other_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def function(deployment: Deployment, **options: Any) -> JinaEmbeddingFunction:
    """Chroma's function for the model, asking the deployment."""
    made = JinaEmbeddingFunction(api_key="any", model_name="jina-embeddings-v4", **options)
    made._api_url = f"{deployment.url}/v1/embeddings"
    return made


def collection(database: chromadb.ClientAPI, embedding: JinaEmbeddingFunction) -> chromadb.Collection:
    return database.create_collection(f"c-{uuid4().hex}", embedding_function=embedding)  # type: ignore[arg-type]


def stored(held: chromadb.Collection, ids: list[str]) -> list[Array]:
    """The vectors that a collection holds, in the order of `ids`."""
    found = held.get(ids=ids, include=["embeddings"])
    vectors = dict(zip(found["ids"], found["embeddings"], strict=True))  # type: ignore[arg-type]
    return [np.array(vectors[one], np.float32) for one in ids]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"task": "retrieval.passage", "dimensions": 256},
        {
            "task": "code.passage",
            "truncate": True,
            "embedding_type": "float",
            "normalized": True,
            "late_chunking": False,
        },
        {"task": "text-matching", "embedding_type": "ubinary", "dimensions": 512},
    ],
    ids=lambda options: ",".join(options) or "defaults",
)
def test_the_nearest_neighbour_of_a_documents_text_is_the_document(
    deployment: Deployment, database: chromadb.ClientAPI, options: dict[str, Any], api: httpx.Client
) -> None:
    held = collection(database, function(deployment, **options))
    ids = [str(number) for number in range(len(DOCUMENTS))]
    held.add(ids=ids, documents=DOCUMENTS)
    found = held.query(query_texts=DOCUMENTS, n_results=2)
    assert [nearest[0] for nearest in found["ids"]] == ids
    for own, second in found["distances"] or []:
        assert own == pytest.approx(0, abs=1e-4)
        assert second > own
    assert_same(stored(held, ids), embed(api, input=DOCUMENTS, **options))


def test_a_query_has_a_task_of_its_own(
    deployment: Deployment, database: chromadb.ClientAPI, api: httpx.Client
) -> None:
    embedding = function(
        deployment, task="retrieval.passage", query_config={"task": "retrieval.query"}, dimensions=1024
    )
    held = collection(database, embedding)
    held.add(ids=["0", "1"], documents=DOCUMENTS[:2])
    found = held.query(query_texts=["When was it built?"], n_results=2)
    [query] = embed(api, input="When was it built?", task="retrieval.query", dimensions=1024)
    passages = embed(api, input=DOCUMENTS[:2], task="retrieval.passage", dimensions=1024)
    distances = dict(zip(found["ids"][0], (found["distances"] or [[]])[0], strict=True))
    for number, passage in enumerate(passages):
        # The square of the distance between two vectors of length 1. In bfloat16 they depend a little on
        # their batches.
        assert distances[str(number)] == pytest.approx(2 - 2 * cosine(query, passage), abs=5e-3)


def test_late_chunking_stores_each_part_in_its_context(
    deployment: Deployment, database: chromadb.ClientAPI, api: httpx.Client
) -> None:
    options: dict[str, Any] = {"task": "retrieval.passage", "late_chunking": True, "dimensions": 1024}
    held = collection(database, function(deployment, **options))
    ids = [str(number) for number in range(len(DOCUMENTS))]
    held.add(ids=ids, documents=DOCUMENTS)
    right = embed(api, input=DOCUMENTS, **options)
    alone = embed(api, input=DOCUMENTS, **{**options, "late_chunking": False})
    vectors = stored(held, ids)
    assert_same(vectors, right)
    # Parts that were not the first have been read after others.
    assert all(cosine(vector, its) < 0.9999 for vector, its in zip(vectors[1:], alone[1:], strict=True))
    assert len(held.query(query_texts=["swifts"], n_results=1)["ids"][0]) == 1


def test_images_are_found_by_themselves(
    deployment: Deployment, database: chromadb.ClientAPI, api: httpx.Client
) -> None:
    held = collection(database, function(deployment, task="retrieval.passage"))
    pictures = [np.array(picture) for picture in (gradient("orange"), gradient("navy"))]
    held.add(ids=["orange", "navy"], images=pictures)
    held.add(ids=["text"], documents=[DOCUMENTS[0]])
    found = held.query(query_images=pictures, n_results=1)
    assert found["ids"] == [["orange"], ["navy"]]
    right = embed(api, input={"image": data_uri(png("navy", (64, 48)))}, task="retrieval.passage")
    assert_same(stored(held, ["navy"]), right)


def test_what_was_wrong_is_what_chroma_says(deployment: Deployment) -> None:
    with pytest.raises(RuntimeError, match="body -> task"):
        function(deployment, task="retrieval")(["a text"])


def gradient(colour: str) -> Any:
    return Image.open(io.BytesIO(png(colour, (64, 48))))
