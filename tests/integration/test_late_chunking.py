"""Late chunking: the vectors of a document's parts, pooled from one forward pass over all of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from tests.engine_workers import Worker
from tests.integration.conftest import BATCH_TOKENS, UPSTREAM
from tests.vectors import Array, array_of, cosine
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.chunks import join, spans_of
from triptych.workers.shared.contract import Document, Image, Item, Text, Vector

CHUNKS = (
    "Berlin is the capital of Germany.",
    "It has 3.8 million inhabitants.",
    "The city lies on the Spree.",
)


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


@pytest.mark.parametrize("parts", [1, 3, 240])
def test_parts_equal_pooling_by_hand(
    worker: Worker, token_states: Callable[[list[int]], Array], parts: int
) -> None:
    chunks = tuple(f"{number}: {CHUNKS[number % 3]}" for number in range(parts))
    [frame] = worker.encode([Item(Document(chunks, "passage"))])
    if parts > 3:
        assert frame.tokens > 3 * BATCH_TOKENS, "prefilled in several chunks"
    assert cosine(array_of(frame), pooled_by_hand(token_states, chunks)) > 0.99999


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
