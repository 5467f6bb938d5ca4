"""`POST /v1/embeddings`: late chunking, token texts, cut inputs, and replies as one .npy matrix."""

import io
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes.frames import LONG, vector_of
from tests.unit.router.apps import Workers
from triptych.router.api.accept import prefers
from triptych.workers.shared.contract import Document, Item, Text

PARTS = ("Berlin is the capital.", "It has parks.", "It has lakes.")
ACCEPT = {"accept": "application/x-npy"}


async def post(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body, headers=headers)


async def test_inputs_become_one_document(client: httpx.AsyncClient, workers: Workers) -> None:
    body = {"input": PARTS, "task": "retrieval.passage", "late_chunking": True, "dimensions": 16}
    reply = (await post(client, **body)).json()
    [batch] = workers.batches
    item = Item(Document(PARTS, "passage"), dimensions=16)
    assert batch.items == [item]
    expected = vector_of("retrieval", item, 2048)
    assert [entry["index"] for entry in reply["data"]] == [0, 1, 2]
    found = np.array([entry["embedding"] for entry in reply["data"]], np.float32)
    np.testing.assert_array_equal(found, np.frombuffer(expected.data, np.float32).reshape(3, 16))
    assert reply["usage"]["total_tokens"] == expected.tokens
    matrix = np.load(io.BytesIO((await post(client, ACCEPT, **body)).content))
    np.testing.assert_array_equal(matrix, found)


@pytest.mark.parametrize("alone", ["one text", {"text": "one text"}, ["one text"]])
async def test_one_text_is_a_document(client: httpx.AsyncClient, alone: object) -> None:
    reply = await post(client, input=alone, late_chunking=True)
    assert [entry["index"] for entry in reply.json()["data"]] == [0]


async def test_image_uri_in_text_item_is_text(client: httpx.AsyncClient, workers: Workers) -> None:
    uri = "data:image/png;base64,iVBORw0KGgo="
    assert (await post(client, input=["a", {"text": uri}], late_chunking=True)).status_code == 200
    assert (await post(client, input={"text": uri})).status_code == 200
    [document, text] = [item.content for batch in workers.batches for item in batch.items]
    assert document == Document(("a", uri), "query")
    assert text == Text(uri, "query")


async def test_token_texts_are_returned(client: httpx.AsyncClient) -> None:
    body = {"input": ["some text", "more"], "return_multivector": True, "return_tokenized_input": True}
    for entry in (await post(client, **body)).json()["data"]:
        assert entry["object"] == "embeddings"
        assert len(entry["tokenized_input"]) == len(entry["embeddings"])
    plain = await post(client, input="some text", return_multivector=True)
    assert "tokenized_input" not in plain.json()["data"][0]


@pytest.mark.parametrize("late_chunking", [False, True])
async def test_cut_inputs_are_named_in_a_header(client: httpx.AsyncClient, late_chunking: bool) -> None:
    for texts, cut in ((["short", LONG], "1"), (["short", "other"], None)):
        reply = await post(client, input=texts, truncate=True, late_chunking=late_chunking)
        assert reply.headers.get("x-truncated-inputs") == cut


@pytest.mark.parametrize("dtype", ["float32", "float16", None])
async def test_matrix_equals_json_reply(client: httpx.AsyncClient, dtype: str | None) -> None:
    texts = ["one", "two", "three"]
    reply = await post(client, ACCEPT, input=texts, dimensions=8, embed_dtype=dtype)
    assert reply.headers["content-type"] == "application/x-npy"
    matrix = np.load(io.BytesIO(reply.content))
    plain = (await post(client, input=texts, dimensions=8)).json()
    expected = np.array([entry["embedding"] for entry in plain["data"]], np.float32)
    assert matrix.shape == (3, 8)
    assert matrix.dtype == np.dtype(dtype or "float32")
    np.testing.assert_array_equal(matrix, expected.astype(matrix.dtype))
    for name in ("total", "prompt"):
        assert int(reply.headers[f"x-usage-{name}-tokens"]) == plain["usage"][f"{name}_tokens"]


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


MATRIX = [
    "application/x-npy",
    "Application/X-NPY; Q=0.5, application/json;q=0.4",
    "application/json, application/x-npy",
    "application/json;q=0, */*",
    "application/json;q=0.5, application/*;q=0.8",
    'application/json;profile="x,y;q=1";q=0.2, application/x-npy;q=0.3',
    "application/x-npy, application/json;q=high",
    "text/plain, " * 20 + "application/x-npy",
]
JSON = [
    None,
    "",
    "*/*",
    "application/x-npy;q=0, application/json;q=0",
    "application/x-npy;q=0.5, */*",
    "application/x-npyx",
    'text/plain;a="application/x-npy"',
    'text/plain;a=", application/x-npy',
    "application/x-npy;q=2",
    "application/x-npy;q=nan",
    '"' + '\\"' * 30_000,
    # Only so many ranges are read, since each takes time.
    "," * 60_000 + "application/x-npy",
]


@pytest.mark.parametrize(
    ("accept", "matrix"),
    [*((one, True) for one in MATRIX), *((one, False) for one in JSON)],
    ids=lambda value: str(value)[:60],
)
def test_accept_header_chooses_the_form(accept: str | None, matrix: bool) -> None:
    assert prefers(accept, "application/x-npy", "application/json") is matrix
