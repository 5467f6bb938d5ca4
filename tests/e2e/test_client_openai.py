"""The openai SDK, synchronous and asynchronous, with a base address and nothing else of its own."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.test_requests import assert_same, embed
from triptych.loadtests.server_processes import Deployment
from triptych.workers.shared.families import V4

TEXTS = ["The quick brown fox", "sorted(xs, key=len)"]


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{deployment.url}/v1", api_key="any", max_retries=0) as client:
        yield client


FIELDS: list[dict[str, Any]] = [
    {},
    {"dimensions": 512},
    {"extra_body": {"task": "retrieval.passage"}},
    {"extra_body": {"task": "code.query"}, "dimensions": 128, "user": "somebody"},
    {"encoding_format": "float", "extra_body": {"task": "retrieval.query"}},
    {"extra_body": {"late_chunking": True}},
]


def as_sent(fields: dict[str, Any]) -> dict[str, Any]:
    """What the same request is without the SDK."""
    rest = {name: value for name, value in fields.items() if name != "extra_body"}
    return {**rest, **fields.get("extra_body", {})}


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_the_sdk_reads_the_vectors(client: openai.OpenAI, api: httpx.Client, fields: dict[str, Any]) -> None:
    reply = client.embeddings.create(model=V4.name, input=TEXTS, **fields)
    assert reply.model == V4.name
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0
    assert [entry.index for entry in reply.data] == [0, 1]
    assert_same([entry.embedding for entry in reply.data], embed(api, input=TEXTS, **as_sent(fields)))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
async def test_the_asynchronous_sdk_reads_the_same(
    deployment: Deployment, client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    synchronous = client.embeddings.create(model=V4.name, input=TEXTS, **fields)
    async with openai.AsyncOpenAI(base_url=f"{deployment.url}/v1", api_key="any", max_retries=0) as sdk:
        reply = await sdk.embeddings.create(model=V4.name, input=TEXTS, **fields)
    one, other = ([np.array(entry.embedding) for entry in its.data] for its in (reply, synchronous))
    assert_same(one, other)


def test_what_the_sdk_asks_for_by_default_is_base64(client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model=V4.name, input="a text", dimensions=64)
    assert json.loads(raw.http_response.request.content)["encoding_format"] == "base64"
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)
    assert len(raw.parse().data[0].embedding) == 64


def test_a_task_may_stand_in_the_models_name(client: openai.OpenAI) -> None:
    named = client.embeddings.create(model=f"{V4.name}:code.passage", input=TEXTS[1]).data[0].embedding
    given = client.embeddings.create(model=V4.name, input=TEXTS[1], extra_body={"task": "code.passage"})
    assert np.dot(named, given.data[0].embedding) > 0.99999
    default = client.embeddings.create(model=V4.name, input=TEXTS[1]).data[0].embedding
    assert np.dot(named, default) < 0.9999


def test_the_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [V4.name]
    assert client.models.retrieve(V4.name).object == "model"


@pytest.mark.parametrize(
    ("fields", "kind", "code", "names"),
    [
        ({"dimensions": 5000}, openai.UnprocessableEntityError, "VALIDATION_ERROR", "body -> dimensions"),
        ({"input": [1, 2, 3]}, openai.UnprocessableEntityError, "VALIDATION_ERROR", "token ids"),
        ({"model": "text-embedding-3-small"}, openai.BadRequestError, "INPUT_MODEL_NOT_FOUND", V4.name),
    ],
    ids=["dimensions", "token ids", "model"],
)
def test_errors_are_the_sdks_own(
    client: openai.OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], code: str, names: str
) -> None:
    with pytest.raises(kind) as wrong:
        client.embeddings.create(**{"model": V4.name, "input": "a text", **fields})
    assert wrong.value.code == code
    assert wrong.value.request_id == wrong.value.response.json()["request_id"]
    assert names in wrong.value.message
