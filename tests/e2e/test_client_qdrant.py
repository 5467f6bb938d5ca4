"""The way of Qdrant's guide for Jina's embeddings: requests for the vectors, qdrant-client for the search."""

import numpy as np
import requests
from qdrant_client import QdrantClient
from qdrant_client.models import Batch, Distance, VectorParams

from triptych.loadtests.server_processes import Deployment

DIMENSIONS = 1024
TEXTS = ["Your text goes here", "More than one may be sent", "And a third, about something else"]


def ask(deployment: Deployment, texts: list[str], **fields: object) -> list[list[float]]:
    """As the guide asks; `fields` in place of its own."""
    reply = requests.post(
        f"{deployment.url}/v1/embeddings",
        headers={"Content-Type": "application/json", "Authorization": "Bearer any"},
        json={
            "input": texts,
            "model": "jina-embeddings-v4",
            "dimensions": DIMENSIONS,
            "task_type": "retrieval.passage",
            **fields,
        },
        timeout=60,
    )
    return [entry["embedding"] for entry in reply.json()["data"]]


def test_the_guides_collection_is_filled_and_searched(deployment: Deployment) -> None:
    vectors = ask(deployment, TEXTS)
    client = QdrantClient(":memory:")
    client.create_collection("guide", vectors_config=VectorParams(size=DIMENSIONS, distance=Distance.DOT))
    client.upsert("guide", points=Batch(ids=list(range(len(vectors))), vectors=vectors))  # type: ignore[arg-type]
    for number, text in enumerate(TEXTS):
        [vector] = ask(deployment, [text])
        found = client.query_points("guide", query=vector, limit=2, with_vectors=True).points
        assert found[0].id == number
        # A dot product of 1 with itself: the vectors are of length 1 after they were cut, too.
        assert abs(found[0].score - 1) < 1e-4
        assert found[1].score < 0.9999


def test_the_guides_task_type_is_the_task(deployment: Deployment) -> None:
    [guide] = ask(deployment, TEXTS[:1])
    [same] = ask(deployment, TEXTS[:1], task_type=None, task="retrieval.passage")
    [other] = ask(deployment, TEXTS[:1], task_type="retrieval.query")
    assert len(guide) == DIMENSIONS
    assert np.dot(guide, same) > 0.99999
    assert np.dot(guide, other) < 0.9999
