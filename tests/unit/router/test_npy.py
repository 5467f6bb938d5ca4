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


async def test_multivectors_are_refused(client: httpx.AsyncClient) -> None:
    reply = await post(client, ACCEPT, input="a", return_multivector=True)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "header -> accept"


async def test_embed_dtype_needs_npy(client: httpx.AsyncClient) -> None:
    reply = await post(client, {}, input="a", embed_dtype="float16")
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == "body -> embed_dtype"


async def test_errors_are_json(client: httpx.AsyncClient) -> None:
    reply = await post(client, ACCEPT, input=[])
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/json"
