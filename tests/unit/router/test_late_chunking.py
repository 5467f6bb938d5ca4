"""Late chunking and token texts in the router."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.fakes.frames import LONG, vector_of
from tests.unit.router.apps import Workers
from triptych.workers.shared.contract import Document, Item, Text

PARTS = ("Berlin is the capital.", "It has parks.", "It has lakes.")


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body)


async def test_inputs_become_one_document(client: httpx.AsyncClient, workers: Workers) -> None:
    reply = await post(client, input=PARTS, task="retrieval.passage", late_chunking=True, dimensions=16)
    assert reply.status_code == 200, reply.text
    [batch] = workers.batches
    item = Item(Document(PARTS, "passage"), dimensions=16)
    assert batch.items == [item]
    expected = vector_of("retrieval", item, 2048)
    data = reply.json()["data"]
    assert [entry["index"] for entry in data] == [0, 1, 2]
    found = np.array([entry["embedding"] for entry in data], np.float32)
    np.testing.assert_array_equal(found, np.frombuffer(expected.data, np.float32).reshape(3, 16))
    assert reply.json()["usage"]["total_tokens"] == expected.tokens


@pytest.mark.parametrize("alone", ["one text", {"text": "one text"}, ["one text"]])
async def test_one_text_is_a_document(client: httpx.AsyncClient, alone: object) -> None:
    reply = await post(client, input=alone, late_chunking=True)
    assert [entry["index"] for entry in reply.json()["data"]] == [0]


@pytest.mark.parametrize("late_chunking", [False, True])
async def test_cut_inputs_are_named_in_a_header(client: httpx.AsyncClient, late_chunking: bool) -> None:
    cut = await post(client, input=["short", LONG], truncate=True, late_chunking=late_chunking)
    assert cut.headers["x-truncated-inputs"] == "1"
    whole = await post(client, input=["short", "other"], truncate=True, late_chunking=late_chunking)
    assert "x-truncated-inputs" not in whole.headers


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
