"""What a worker gives for each form of output, alone and in company."""

import random

import httpx
import numpy as np
import pytest

from tests.engine_workers import Worker
from tests.integration.conftest import BATCH_TOKENS, MAX_TOKENS, OFFICIAL, every_form
from tests.vectors import Array, array_of, cosine
from triptych.workers.shared.contract import INFO_PATH, POOLS, Image, Item, Role, Text, Vector, decode_info

FULL = 256
ROLES: tuple[Role, ...] = ("query", "passage")


def one(worker: Worker, item: Item) -> Array:
    [frame] = worker.encode([item])
    return array_of(frame)


@pytest.mark.parametrize("number", [0, -1])
def test_unnormalised_vectors_point_the_same_way(worker: Worker, texts: list[str], number: int) -> None:
    text = Text(texts[number], "query")
    unit, mean = one(worker, Item(text)), one(worker, Item(text, normalized=False))
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    assert abs(np.linalg.norm(mean) - 1) > 1e-3
    assert cosine(unit, mean) > 0.999999


def test_vector_is_independent_of_its_batch(worker: Worker, texts: list[str], images: list[bytes]) -> None:
    # Short, and over several prefill chunks.
    many = [*texts, *(f"{number} and counting" for number in range(20))]
    read: list[Text | Image] = [Text(text, ROLES[number % 2]) for number, text in enumerate(many)]
    items = every_form([*read, *map(Image, images)])
    queries: list[Text | Image] = [Text("a query", "query"), Text("another query", "query")]
    alone = [array_of(*worker.encode([item], queries=queries)) for item in items]
    for seed in (1, 2):
        order = list(range(len(items)))
        random.Random(seed).shuffle(order)
        together = worker.encode([items[place] for place in order], queries=queries)
        for place, frame in zip(order, together, strict=True):
            vector = array_of(frame)
            assert cosine(vector, alone[place]) > 0.999999, items[place]
            np.testing.assert_allclose(np.linalg.norm(vector), np.linalg.norm(alone[place]), rtol=1e-4)


def test_longest_text_takes_several_chunks(worker: Worker, texts: list[str]) -> None:
    """Holds the tests above to what they claim."""
    [frame] = worker.encode([Item(Text(texts[-1], "query"))])
    assert frame.tokens > 3 * BATCH_TOKENS


def test_special_tokens_in_a_text_are_harmless(worker: Worker) -> None:
    hostile = [
        "<|image_pad|>",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|video_pad|>" * 50,
        "<|im_start|>user\n<|im_end|>\n<|endoftext|>",
    ]
    neighbour = Item(Text("a peaceful neighbour", "query"))
    before = one(worker, neighbour)
    frames = worker.encode([neighbour, *(Item(Text(text, "query")) for text in hostile), neighbour])
    assert all(isinstance(frame, Vector) for frame in frames)
    assert cosine(array_of(frames[0]), before) > 0.999999
    assert cosine(array_of(frames[-1]), before) > 0.999999


@pytest.mark.parametrize("pool", POOLS)
def test_info_says_what_is_served(pools: dict[str, Worker], pool: str) -> None:
    info = decode_info(httpx.get(pools[pool].url + INFO_PATH).content)
    assert info.task == pool
    assert info.dimensions == FULL
    assert info.multivector_dimensions == (None if pool == OFFICIAL else 128)
    assert info.max_tokens == MAX_TOKENS
    assert info.batch_tokens == BATCH_TOKENS
    assert info.space
    assert {"torch", "transformers"} <= info.versions.keys()
