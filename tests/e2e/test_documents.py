"""Documents in context, rankings and PDFs, by the whole: router, pools, engines."""

import base64
import io

import httpx
import numpy as np
from PIL import Image, ImageDraw

from tests.e2e.test_requests import IMAGES, data_uri, embed
from tests.vectors import Array, cosine

CHUNKS = ["Berlin is the capital of Germany.", "It has 3.8 million inhabitants.", "It lies on the Spree."]
QUERY = "Which river flows through Berlin?"


def pdf(*texts: str) -> str:
    """A PDF with one page for each text, as base64."""
    pages = []
    for text in texts:
        page = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(page).text((20, 80), text, fill="black", font_size=40)
        pages.append(page)
    buffer = io.BytesIO()
    pages[0].save(buffer, "PDF", save_all=True, append_images=pages[1:])
    return base64.b64encode(buffer.getvalue()).decode()


def multi_vectors(api: httpx.Client, task: str, inputs: list[object]) -> list[Array]:
    return embed(api, input=inputs, task=task, return_multivector=True)


def test_late_chunking_reads_parts_in_context(api: httpx.Client) -> None:
    together = embed(api, input=CHUNKS, task="retrieval.passage", late_chunking=True)
    apart = embed(api, input=CHUNKS, task="retrieval.passage")
    assert len(together) == len(CHUNKS)
    # The first part has nothing before it, and what follows cannot be seen from it.
    assert cosine(together[0], apart[0]) > 0.9999
    for in_context, alone in zip(together[1:], apart[1:], strict=True):
        assert cosine(in_context, alone) < 0.99


def test_rerank_is_late_interaction(api: httpx.Client) -> None:
    documents = [*CHUNKS, {"image": data_uri(IMAGES[0])}]
    reply = api.post("/v1/rerank", json={"query": QUERY, "documents": documents})
    assert reply.status_code == 200, reply.text
    [query] = multi_vectors(api, "retrieval.query", [QUERY])
    expected = [
        float((query @ document.T).max(axis=1).mean())
        for document in multi_vectors(api, "retrieval.passage", documents)
    ]
    results = reply.json()["results"]
    scores = {result["index"]: result["relevance_score"] for result in results}
    np.testing.assert_allclose([scores[index] for index in range(len(documents))], expected, atol=2e-3)
    assert [result["relevance_score"] for result in results] == sorted(scores.values(), reverse=True)
    assert results[0]["document"].keys() <= {"text", "image"}


def test_each_pdf_page_is_an_image(api: httpx.Client) -> None:
    pages = embed(api, input={"pdf": pdf("one", "two", "one")}, task="retrieval.passage")
    assert len(pages) == 3
    assert cosine(pages[0], pages[2]) > 0.99999
    assert cosine(pages[0], pages[1]) < 0.9999
