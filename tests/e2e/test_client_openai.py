"""The openai SDK, with a base address and nothing else of its own."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.test_requests import embed
from tests.vectors import cosine
from triptych.loadtests.server_processes import Deployment
from triptych.workers.shared.families import V4

TEXTS = ["The quick brown fox", "sorted(xs, key=len)"]


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{deployment.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_sdk_reads_the_vectors(client: openai.OpenAI, api: httpx.Client, encoding: dict[str, Any]) -> None:
    extra = {"task": "code.query"}
    reply = client.embeddings.create(
        model=V4.name, input=TEXTS, dimensions=128, user="me", extra_body=extra, **encoding
    )
    assert reply.model == V4.name
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0
    for entry, right in zip(reply.data, embed(api, input=TEXTS, dimensions=128, **extra), strict=True):
        assert cosine(np.array(entry.embedding, np.float32), right) > 0.99999


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [V4.name]
    assert client.models.retrieve(V4.name).object == "model"


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"dimensions": 5000}, openai.UnprocessableEntityError, "VALIDATION_ERROR"),
        ({"model": "text-embedding-3-small"}, openai.BadRequestError, "INPUT_MODEL_NOT_FOUND"),
    ],
    ids=["dimensions", "model"],
)
def test_errors_are_the_sdks_own(
    client: openai.OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(kind) as wrong:
        client.embeddings.create(**{"model": V4.name, "input": "a text", **fields})
    assert wrong.value.code == code
    assert wrong.value.request_id == wrong.value.response.json()["request_id"]
