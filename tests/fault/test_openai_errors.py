"""Errors as the openai SDK shows them: it reads nothing but `error`."""

import hashlib
from typing import Any

import openai
import pytest

from tests.fakes.router import RunningRouter, one_worker

KEY = "triptych_" + "k" * 32
KEYS: list[dict[str, Any]] = [
    {"name": "one", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "requests_per_minute": 1}
]


def sdk(router: RunningRouter, **options: Any) -> openai.AsyncOpenAI:
    options = {"api_key": "any", "max_retries": 0, **options}
    return openai.AsyncOpenAI(base_url=f"{router.client.base_url}/v1", **options)


async def failure(client: openai.AsyncOpenAI, **fields: Any) -> openai.APIStatusError:
    """What the SDK raises for a request."""
    fields = {
        "model": "jina-embeddings-v4",
        "input": "a",
        "extra_body": {"task": "retrieval.query"},
        **fields,
    }
    with pytest.raises(openai.APIStatusError) as caught:
        await client.embeddings.create(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "kind", "type_", "code"),
    [
        ({"dimensions": 5000}, openai.UnprocessableEntityError, "invalid_request_error", "VALIDATION_ERROR"),
        ({"model": "gpt"}, openai.BadRequestError, "invalid_request_error", "INPUT_MODEL_NOT_FOUND"),
        ({"input": "!token_limit"}, openai.BadRequestError, "invalid_request_error", None),
        ({"input": "!internal"}, openai.InternalServerError, "server_error", "INTERNAL_ERROR"),
        (
            {"extra_body": {"task": "code.query"}},
            openai.InternalServerError,
            "server_error",
            "SERVICE_UNAVAILABLE",
        ),
    ],
    ids=str,
)
async def test_sdk_exception_shows_the_detail(
    fields: dict[str, Any], kind: type[openai.APIStatusError], type_: str, code: str | None
) -> None:
    async with one_worker() as (router, _), sdk(router) as client:
        error = await failure(client, **fields)
        reply = error.response.json()
        assert isinstance(error, kind)
        assert reply["detail"] in error.message
        assert (error.type, error.code) == (type_, code or reply["code"])


async def test_sdk_exception_for_key_and_rate_limit() -> None:
    async with (
        one_worker(wait=False, api_keys=KEYS) as (router, _),
        sdk(router) as stranger,
        sdk(router, api_key=KEY) as client,
    ):
        error = await failure(stranger)
        assert isinstance(error, openai.AuthenticationError)
        assert error.type == "authentication_error"
        assert error.response.json()["detail"] in error.message
        await client.models.list()
        error = await failure(client)
        assert isinstance(error, openai.RateLimitError)
        assert (error.type, error.code) == ("rate_limit_error", "RATE_REQUEST_LIMIT_EXCEEDED")
        assert error.response.json()["detail"] in error.message
