"""Late chunking: the vectors of a document's parts, pooled from one forward pass over all of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from tests.engine_workers import Worker
from tests.integration.conftest import BATCH_TOKENS, MAX_TOKENS, UPSTREAM
from tests.vectors import Array, array_of, cosine
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.chunks import join, spans_of
from triptych.workers.shared.contract import Document, Failure, Image, Item, Text, Vector

CHUNKS = (
    "Berlin is the capital of Germany.",
    "It has 3.8 million inhabitants.",
    "The city lies on the Spree.",
)


@pytest.fixture
def worker(pools: dict[str, Worker]) -> Worker:
    return pools["retrieval"]


@pytest.fixture(scope="module")
def token_states(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int]], Array]:
    """The last hidden states of transformers for token ids: [tokens, h]."""
    folder = stock_copy(variants / "retrieval", tmp_path_factory.mktemp("stock") / "model")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def states(token_ids: list[int]) -> Array:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([token_ids])).last_hidden_state[0].numpy()

    return states


def pooled_by_hand(token_states: Callable[[list[int]], Array], chunks: tuple[str, ...]) -> Array:
    text, starts = join("Passage: ", chunks)
    encoded = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json")).encode(text, add_special_tokens=False)
    spans = spans_of([start for start, _ in encoded.offsets], starts, len(encoded.ids))
    states = token_states(encoded.ids)
    means = np.array([states[start:end].mean(axis=0) for start, end in spans])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("times", [1, 80])
def test_parts_equal_pooling_by_hand(
    worker: Worker, token_states: Callable[[list[int]], Array], times: int
) -> None:
    chunks = tuple(f"{number}: {chunk}" for number in range(times) for chunk in CHUNKS)
    [frame] = worker.encode([Item(Document(chunks, "passage"))])
    if times > 1:
        assert frame.tokens > 3 * BATCH_TOKENS, "prefilled in several chunks"
    assert cosine(array_of(frame), pooled_by_hand(token_states, chunks)) > 0.99999


def test_context_changes_a_parts_vector(worker: Worker) -> None:
    [together] = worker.encode([Item(Document(CHUNKS, "passage"))])
    for number, chunk in enumerate(CHUNKS[1:], 1):
        [alone] = worker.encode([Item(Text(chunk, "passage"))])
        assert cosine(array_of(together)[number], array_of(alone)) < 0.999
    # What comes later cannot change what was read before it.
    [first] = worker.encode([Item(Document(CHUNKS[:1], "passage"))])
    assert cosine(array_of(together)[0], array_of(first)[0]) > 0.9999


def test_dimensions_and_norm_hold_for_each_part(worker: Worker) -> None:
    [full] = worker.encode([Item(Document(CHUNKS, "passage"))])
    [cut] = worker.encode([Item(Document(CHUNKS, "passage"), dimensions=64)])
    head = array_of(full)[:, :64]
    expected = head / np.linalg.norm(head, axis=1, keepdims=True)
    np.testing.assert_allclose(array_of(cut), expected, atol=1e-5)


def test_document_of_one_part_is_that_text(worker: Worker) -> None:
    [document, text] = worker.encode([Item(Document(CHUNKS[:1], "query")), Item(Text(CHUNKS[0], "query"))])
    assert document.shape == (1, 256)
    assert cosine(array_of(document)[0], array_of(text)) > 0.999999


def test_empty_part_fails_its_document_alone(worker: Worker) -> None:
    bad, good = worker.encode([Item(Document(("One.", ""), "passage")), Item(Document(CHUNKS, "passage"))])
    assert isinstance(bad, Failure)
    assert bad.code == "invalid"
    assert "chunk 1" in bad.message
    assert isinstance(good, Vector)


def test_document_over_the_context_is_refused_or_cut(worker: Worker) -> None:
    long = ("a short beginning", "and then on " * MAX_TOKENS)
    refused, cut, impossible = worker.encode(
        [
            Item(Document(long, "passage")),
            Item(Document(long, "passage"), truncate=True, dimensions=8),
            Item(Document((*long, "unreachable"), "passage"), truncate=True),
        ]
    )
    assert isinstance(refused, Failure)
    assert refused.code == "token_limit"
    assert isinstance(cut, Vector)
    assert cut.cut == 1
    assert cut.tokens == MAX_TOKENS
    assert isinstance(impossible, Failure)
    assert impossible.code == "token_limit"
    assert "chunk 2 begins at token" in impossible.message


def test_tokens_are_given_as_text_where_asked_for(worker: Worker, images: list[bytes]) -> None:
    text, image = worker.encode(
        [
            Item(Text("some words", "query"), multivector=True, tokenized=True),
            Item(Image(images[0]), multivector=True, tokenized=True),
        ]
    )
    assert isinstance(text, Vector)
    assert text.tokenized is not None
    assert "".join(text.tokenized) == "Query: some words"
    assert len(text.tokenized) == text.tokens == text.shape[0]
    assert isinstance(image, Vector)
    assert image.tokenized is not None
    assert len(image.tokenized) == image.tokens == image.shape[0]
    assert image.tokenized.count("<|vision_start|>") == 1
    assert "".join(image.tokenized).endswith("<|vision_end|>Describe the image.<|im_end|>\n")
