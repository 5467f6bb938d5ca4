"""chromadb with its own `JinaEmbeddingFunction`, of which only the address is changed."""

import warnings
from typing import Any

import chromadb
import httpx
import numpy as np
import pytest
from chromadb.utils.embedding_functions import JinaEmbeddingFunction

from tests.e2e.test_requests import embed
from tests.vectors import cosine
from triptych.loadtests.server_processes import Deployment

DOCUMENTS = [
    "Rye bread keeps for a week.",
    "The lighthouse was built in 1887 of grey stone.",
    "A binary heap gives its smallest element first.",
    "Swifts sleep while they fly.",
]
QUESTION = "When was it built?"
OPTIONS: dict[str, Any] = {
    "task": "retrieval.passage",
    "dimensions": 256,
    "truncate": True,
    "embedding_type": "float",
    "normalized": True,
    "late_chunking": False,
}


def test_collection_holds_passages_and_is_searched_with_a_query(
    deployment: Deployment, api: httpx.Client
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        function = JinaEmbeddingFunction(
            api_key="any",
            model_name="jina-embeddings-v4",
            query_config={"task": "retrieval.query"},
            **OPTIONS,
        )
    function._api_url = f"{deployment.url}/v1/embeddings"
    database = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    held = database.create_collection("documents", embedding_function=function)  # type: ignore[arg-type]
    held.add(ids=list("0123"), documents=DOCUMENTS)
    found = held.query(query_texts=[QUESTION], n_results=4, include=["embeddings", "distances"])
    [query] = embed(api, input=QUESTION, **OPTIONS | {"task": "retrieval.query"})
    passages = embed(api, input=DOCUMENTS, **OPTIONS)
    for number, stored, distance in zip(
        found["ids"][0], found["embeddings"][0], found["distances"][0], strict=True
    ):
        passage = passages[int(number)]
        assert cosine(np.array(stored, np.float32), passage) > 0.99999
        # The square of the distance between two vectors of length 1.
        assert distance == pytest.approx(2 - 2 * cosine(query, passage), abs=1e-4)
