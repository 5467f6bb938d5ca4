"""Clients that are not installed here: the bodies that each sends, its replies read as it reads them."""

import base64
import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_requests import IMAGES, assert_same, data_uri, embed, vectors_of
from tests.vectors import cosine

MODEL = "jina-embeddings-v4"
TEXTS = ["Rye bread keeps for a week.", "Swifts sleep while they fly.", "A heap is a tree."]
RAW = [base64.b64encode(image).decode() for image in IMAGES]


def ask(api: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a body that must be taken, sent as these clients do."""
    headers = {"Authorization": "Bearer any", "Accept-Encoding": "identity"}
    reply = api.post("/v1/embeddings", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    read: dict[str, Any] = reply.json()
    return read


@pytest.fixture
def address_of_image() -> Iterator[str]:
    """Where the first of `IMAGES` can be fetched."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(IMAGES[0])))
            self.end_headers()
            self.wfile.write(IMAGES[0])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/image.png"
        server.shutdown()
        thread.join()


def pdf(pages: list[Image.Image]) -> str:
    """A document of these pages, as base64."""
    first, *others = [page.copy() for page in pages]
    file = io.BytesIO()
    first.save(file, "PDF", save_all=True, append_images=others)
    return base64.b64encode(file.getvalue()).decode()


def test_langchain_sends_texts_without_a_task(api: httpx.Client) -> None:
    reply = ask(api, {"input": TEXTS, "model": MODEL})
    ordered = sorted(reply["data"], key=lambda entry: entry["index"])
    vectors = [np.array(entry["embedding"], np.float32) for entry in ordered]
    assert_same(vectors, embed(api, input=TEXTS, task="text-matching"))


def test_langchain_sends_images_as_bytes(api: httpx.Client) -> None:
    reply = ask(api, {"input": [{"bytes": raw} for raw in RAW], "model": MODEL})
    assert_same(vectors_of(reply), embed(api, input=[{"image": data_uri(image)} for image in IMAGES]))


def test_langchain_sends_the_address_of_an_image(api: httpx.Client, address_of_image: str) -> None:
    reply = ask(api, {"input": [{"url": address_of_image}], "model": MODEL})
    assert_same(vectors_of(reply), embed(api, input={"image": RAW[0]}))


@pytest.mark.parametrize(("form", "read"), [("binary", 128), ("ubinary", 0)])
def test_llama_index_unpacks_bits(api: httpx.Client, form: str, read: int) -> None:
    """It adds 128 to the bytes of `binary`, and takes those of `ubinary` as they are."""
    body = {"input": TEXTS, "model": MODEL, "encoding_type": form, "task": "retrieval.passage"}
    floats = embed(api, input=TEXTS, task="retrieval.passage")
    for entry, right in zip(ask(api, body)["data"], floats, strict=True):
        bits = np.unpackbits((np.array(entry["embedding"]) + read).astype(np.uint8))
        # A value so near to nought that another batch may turn its sign says nothing.
        clear = np.abs(right) > 1e-3
        np.testing.assert_array_equal(bits[clear], (right > 0)[clear])


def test_llama_index_sends_floats_by_its_own_name(api: httpx.Client) -> None:
    reply = ask(api, {"input": TEXTS, "model": MODEL, "encoding_type": "float", "task": "retrieval.query"})
    assert_same(vectors_of(reply), embed(api, input=TEXTS, task="retrieval.query"))


def test_a_bare_data_uri_is_an_image(api: httpx.Client) -> None:
    """So llama-index, langchain and haystack send images."""
    reply = ask(api, {"input": [data_uri(image) for image in IMAGES], "model": MODEL})
    assert_same(vectors_of(reply), embed(api, input=[{"image": raw} for raw in RAW]))


def test_haystack_adds_up_what_was_used(api: httpx.Client) -> None:
    body = {
        "input": TEXTS,
        "model": MODEL,
        "task": "retrieval.passage",
        "dimensions": 512,
        "late_chunking": False,
    }
    total: dict[str, int] = {}
    for part in (TEXTS[:2], TEXTS[2:]):
        reply = ask(api, {**body, "input": part})
        assert reply["model"] == MODEL
        for name in ("prompt_tokens", "total_tokens"):
            total[name] = total.get(name, 0) + reply["usage"][name]
    assert total == ask(api, body)["usage"]
    assert_same(vectors_of(ask(api, body)), embed(api, **body))


def test_litellm_sends_images_as_plain_base64(api: httpx.Client) -> None:
    reply = ask(api, {"model": MODEL, "input": [{"image": RAW[0]}, {"text": TEXTS[0]}, {"image": RAW[1]}]})
    right = embed(api, input=[data_uri(IMAGES[0]), TEXTS[0], data_uri(IMAGES[1])])
    assert_same(vectors_of(reply), right)
    assert {entry["object"] for entry in reply["data"]} == {"embedding"}
    assert reply["object"] == "list"


def test_weaviate_reads_vectors_and_usage(api: httpx.Client) -> None:
    reply = ask(api, {"input": TEXTS, "model": MODEL, "dimensions": 256})
    assert all(isinstance(value, int) for value in reply["usage"].values())
    assert_same(vectors_of(reply), embed(api, input=TEXTS, dimensions=256))


def test_weaviate_takes_a_task_from_the_models_name(api: httpx.Client) -> None:
    reply = ask(api, {"input": TEXTS, "model": f"{MODEL}:retrieval.passage"})
    assert_same(vectors_of(reply), embed(api, input=TEXTS, task="retrieval.passage"))


@pytest.mark.parametrize(
    "body",
    [
        {"input": TEXTS, "model": "jina-clip-v2"},
        {"input": [5], "model": MODEL},
        {"input": TEXTS, "model": MODEL, "dimensions": 0},
        {"input": [{"image": "%%%"}], "model": MODEL},
        {"input": ["long " * 5000], "model": MODEL},
    ],
    ids=["model", "item", "dimensions", "image", "length"],
)
def test_weaviate_decodes_the_detail_of_an_error_into_a_string(
    api: httpx.Client, body: dict[str, Any]
) -> None:
    reply = api.post("/v1/embeddings", json=body)
    assert reply.status_code in (400, 422)
    assert isinstance(reply.json()["detail"], str)


def test_elasticsearch_reads_vectors_in_the_order_of_the_array(api: httpx.Client) -> None:
    texts = [f"document {number} of {'many ' * (number % 7)}" for number in range(40)]
    body = {"input": texts, "model": MODEL, "task": "retrieval.passage", "embedding_type": "float"}
    alone = [vector for text in texts for vector in embed(api, input=text, task="retrieval.passage")]
    assert_same(vectors_of(ask(api, body)), alone)


def test_elasticsearch_sends_a_pdf_alone(api: httpx.Client) -> None:
    pages = [Image.open(io.BytesIO(image)).resize((120, 160)) for image in IMAGES]
    raw = pdf(pages)
    body = {"model": MODEL, "task": "retrieval.passage"}
    reply = ask(api, {**body, "input": {"pdf": f"data:application/pdf;base64,{raw}"}})
    vectors = vectors_of(reply)
    assert len(vectors) == len(pages)
    assert cosine(vectors[0], vectors[1]) < 0.9999
    assert_same(vectors_of(ask(api, {**body, "input": {"pdf": raw}})), vectors)
    for page, vector in zip(pages, vectors, strict=True):
        assert_same(vectors_of(ask(api, {**body, "input": {"pdf": pdf([page])}})), [vector])


def test_agno_sends_a_user_and_one_text(api: httpx.Client) -> None:
    body = {
        "model": MODEL,
        "input": TEXTS[0],
        "dimensions": 1024,
        "embedding_type": "float",
        "late_chunking": False,
        "user": "somebody",
    }
    reply = ask(api, body)
    assert_same(vectors_of(reply), embed(api, input=TEXTS[0], dimensions=1024))
