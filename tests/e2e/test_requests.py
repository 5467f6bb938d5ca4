"""Requests of a client to the whole: router, three pools, real engines on the demo's variants."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.e2e.conftest import MAX_TOKENS
from tests.vectors import Array, cosine

TASKS = ("text-matching", "retrieval.query", "retrieval.passage", "code.query", "code.passage")
# The example of the model card: one sentence in ten languages, and two images.
SENTENCES = [
    "غروب جميل على الشاطئ",
    "海滩上美丽的日落",
    "Un beau coucher de soleil sur la plage",
    "Ein wunderschöner Sonnenuntergang am Strand",
    "Ένα όμορφο ηλιοβασίλεμα πάνω από την παραλία",
    "समुद्र तट पर एक खूबसूरत सूर्यास्त",
    "Un bellissimo tramonto sulla spiaggia",
    "浜辺に沈む美しい夕日",
    "해변 위로 아름다운 일몰",
    "A beautiful sunset over the beach",
]
DIMENSIONS = 2048


def png(colour: str, size: tuple[int, int]) -> bytes:
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(image, Image.new("RGB", size, colour), 0.5).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


IMAGES = [png("orange", (320, 200)), png("navy", (97, 301))]


def embed(api: httpx.Client, **body: Any) -> list[Array]:
    """The vectors of a request that must succeed, in order."""
    reply = api.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [np.array(item.get("embedding", item.get("embeddings")), np.float32) for item in data]


def vectors_of(reply: dict[str, Any]) -> list[Array]:
    """In the order of the array, as clients that never look at `index`."""
    return [np.array(entry["embedding"], np.float32) for entry in reply["data"]]


def assert_same(vectors: Sequence[Any], right: Sequence[Array]) -> None:
    """In bfloat16 a vector depends a little on its batch."""
    assert cosine(np.array(vectors, np.float32), np.array(right)) > 0.99999


def test_model_cards_request(api: httpx.Client) -> None:
    inputs = [{"text": text} for text in SENTENCES] + [{"image": data_uri(image)} for image in IMAGES]
    reply = api.post(
        "/v1/embeddings", json={"model": "jina-embeddings-v4", "task": "text-matching", "input": inputs}
    )
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["model"] == "jina-embeddings-v4"
    assert body["object"] == "list"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > len(inputs)
    vectors = np.array([item["embedding"] for item in body["data"]], np.float32)
    assert vectors.shape == (12, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    # Each its own vector: nothing answered twice, nothing mixed up with a neighbour.
    alike = vectors @ vectors.T - np.eye(len(vectors))
    assert alike.max() < 0.9999


def test_task_selects_pool_and_role(api: httpx.Client) -> None:
    vectors = {task: embed(api, input="one text", task=task)[0] for task in TASKS}
    for task, vector in vectors.items():
        for other, its in vectors.items():
            if task != other:
                assert cosine(vector, its) < 0.9999, (task, other)


def test_items_with_own_tasks_keep_their_order(api: httpx.Client) -> None:
    inputs: list[dict[str, str]] = []
    alone = []
    for number, task in enumerate(TASKS * 4):
        text = f"{number} of many, for {task}"
        inputs.append({"text": text, "task": task})
        alone += embed(api, input=text, task=task)
    inputs.append({"image": data_uri(IMAGES[0]), "task": "code.query"})
    alone += embed(api, input=[{"image": data_uri(IMAGES[0])}], task="code.passage")
    together = embed(api, input=inputs, task="retrieval.query")
    assert_same(together, alone)


def test_text_over_the_context_is_refused_or_cut(api: httpx.Client) -> None:
    text = "too long to read " * MAX_TOKENS
    refused = api.post("/v1/embeddings", json={"input": ["fine", text]})
    assert refused.status_code == 400
    assert refused.json()["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"
    assert "body -> input -> 1" in refused.json()["detail"]
    cut = api.post("/v1/embeddings", json={"input": text, "truncate": True})
    assert cut.status_code == 200
    assert cut.json()["usage"]["prompt_tokens"] == MAX_TOKENS


def test_bad_image_fails_its_request_only(api: httpx.Client) -> None:
    bad = data_uri(IMAGES[0][: len(IMAGES[0]) // 2])
    reply = api.post("/v1/embeddings", json={"input": ["fine", {"image": bad}]})
    assert reply.status_code == 400
    assert reply.json()["code"] == "INPUT_MEDIA_INVALID"
    assert "body -> input -> 1" in reply.json()["detail"]
    assert len(embed(api, input="the next one")) == 1


def test_rerank_is_late_interaction(api: httpx.Client) -> None:
    documents = [*SENTENCES[:3], {"image": data_uri(IMAGES[0])}]
    reply = api.post("/v1/rerank", json={"query": SENTENCES[-1], "documents": documents})
    assert reply.status_code == 200, reply.text
    [query] = embed(api, input=SENTENCES[-1], task="retrieval.query", return_multivector=True)
    expected = [
        float((query @ document.T).max(axis=1).mean())
        for document in embed(api, input=documents, task="retrieval.passage", return_multivector=True)
    ]
    results = reply.json()["results"]
    scores = {result["index"]: result["relevance_score"] for result in results}
    np.testing.assert_allclose([scores[index] for index in range(len(documents))], expected, atol=2e-3)
    assert [result["relevance_score"] for result in results] == sorted(scores.values(), reverse=True)
    assert results[0]["document"].keys() <= {"text", "image"}
