"""Replies as one .npy matrix."""

import io
from typing import Any

import httpx
import numpy as np
import pytest

ACCEPT = {"accept": "application/x-npy"}


async def post(client: httpx.AsyncClient, headers: dict[str, str], **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body, headers=headers)


@pytest.mark.parametrize("dtype", ["float32", "float16", None])
async def test_matrix_equals_json_reply(client: httpx.AsyncClient, dtype: str | None) -> None:
    texts = ["one", "two", "three"]
    reply = await post(client, ACCEPT, input=texts, dimensions=8, embed_dtype=dtype)
    assert reply.headers["content-type"] == "application/x-npy"
    matrix = np.load(io.BytesIO(reply.content))
    plain = (await post(client, {}, input=texts, dimensions=8)).json()
    expected = np.array([entry["embedding"] for entry in plain["data"]], np.float32)
    assert matrix.shape == (3, 8)
    assert matrix.dtype == np.dtype(dtype or "float32")
    np.testing.assert_array_equal(matrix, expected.astype(matrix.dtype))
    for name in ("total", "prompt"):
        assert int(reply.headers[f"x-usage-{name}-tokens"]) == plain["usage"][f"{name}_tokens"]


async def test_document_parts_are_rows(client: httpx.AsyncClient) -> None:
    reply = await post(client, ACCEPT, input=["one", "two"], late_chunking=True)
    assert np.load(io.BytesIO(reply.content)).shape == (2, 2048)


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        (ACCEPT, {"input": "a", "return_multivector": True}, "header -> accept"),
        ({}, {"input": "a", "embed_dtype": "float16"}, "body -> embed_dtype"),
        (ACCEPT, {"input": []}, "body -> input"),
    ],
)
async def test_wrong_request_gets_json(
    client: httpx.AsyncClient, headers: dict[str, str], body: dict[str, Any], field: str
) -> None:
    reply = await post(client, headers, **body)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/json")
    assert reply.json()["errors"][0]["field"] == field
