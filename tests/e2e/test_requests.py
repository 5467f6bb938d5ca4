"""Requests of a client to the whole: router, three pools, real engines on the demo's variants."""

import base64
import io
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.e2e.conftest import MAX_TOKENS
from tests.vectors import Array, cosine

TASKS = ("text-matching", "retrieval.query", "retrieval.passage", "code.query", "code.passage")


def picture() -> str:
    """A PNG as a data URI."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((320, 200)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def embed(api: httpx.Client, **body: Any) -> list[Array]:
    """The vectors of a request that must succeed, in order."""
    reply = api.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [np.array(item.get("embedding", item.get("embeddings")), np.float32) for item in data]


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
    inputs.append({"image": picture(), "task": "code.query"})
    alone += embed(api, input=[{"image": picture()}], task="code.passage")
    together = embed(api, input=inputs, task="retrieval.query")
    for vector, its in zip(together, alone, strict=True):
        assert cosine(vector, its) > 0.99999


def test_text_over_the_context_is_refused_or_cut(api: httpx.Client) -> None:
    text = "too long to read " * MAX_TOKENS
    refused = api.post("/v1/embeddings", json={"input": ["fine", text]})
    assert refused.status_code == 400
    assert refused.json()["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"
    assert "body -> input -> 1" in refused.json()["detail"]
    cut = api.post("/v1/embeddings", json={"input": text, "truncate": True})
    assert (cut.status_code, cut.headers["x-truncated-inputs"]) == (200, "0")
    assert cut.json()["usage"]["prompt_tokens"] == MAX_TOKENS
