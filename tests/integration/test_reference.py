"""Engines on merged variants give the vectors of the model's own code on unmerged adapters."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.engine_workers import Worker
from tests.integration.conftest import OFFICIAL, UPSTREAM
from tests.vectors import array_of, cosine
from triptych.workers.prompts import Prompt, Prompter
from triptych.workers.shared.contract import POOLS, Failure, Image, Item, Text

Reference = dict[str, NDArray[np.float32]]
ROLES = ("query", "passage")
MULTI_TEXTS, MULTI_IMAGES = 5, 3
# Lower for the weights that are stored in bfloat16.
BARS = {"retrieval": 0.99999, "text-matching": 0.99999, "code": 0.9999}


def reference_items(pool: str, texts: list[str], images: list[bytes]) -> dict[str, Item]:
    """Every dense and multi-vector reference of a pool: its name and the item that must give it."""
    items = {}
    for role in ROLES:
        for number, text in enumerate(texts):
            name = f"text/{pool}/{role}/{number}"
            items[f"{name}/dense"] = Item(Text(text, role))
            if number < MULTI_TEXTS:
                items[f"{name}/multi"] = Item(Text(text, role), multivector=True)
    for number, image in enumerate(images):
        name = f"image/{pool}/{number}"
        items[f"{name}/dense"] = Item(Image(image))
        if number < MULTI_IMAGES:
            items[f"{name}/multi"] = Item(Image(image), multivector=True)
    return items


@pytest.mark.parametrize("pool", POOLS)
def test_variants_give_the_reference_vectors(
    pools: dict[str, Worker], pool: str, texts: list[str], images: list[bytes], reference: Reference
) -> None:
    items = reference_items(pool, texts, images)
    assert len(items) == 2 * (len(texts) + MULTI_TEXTS) + len(images) + MULTI_IMAGES
    if pool == OFFICIAL:
        items = {name: item for name, item in items.items() if not item.multivector}
    frames = pools[pool].encode(list(items.values()))
    for name, frame in zip(items, frames, strict=True):
        assert cosine(array_of(frame), reference[name]) >= BARS[pool], name
        assert frame.tokens == len(reference[name.rpartition("/")[0] + "/tokens"]), name


def test_official_folders_refuse_multi_vectors(pools: dict[str, Worker], images: list[bytes]) -> None:
    items = [Item(content, multivector=True) for content in (Text("a", "query"), Image(images[0]))]
    for frame in pools[OFFICIAL].encode(items):
        assert isinstance(frame, Failure)
        assert frame.code == "unsupported"
        assert "multi_vector_projector" in frame.message


def test_reference_tells_the_pools_apart(reference: Reference) -> None:
    """Otherwise the tests above would pass with any adapter."""
    vectors = [reference[f"text/{pool}/query/0/dense"] for pool in POOLS]
    for number, vector in enumerate(vectors):
        for other in vectors[:number]:
            assert cosine(vector, other) < 0.999


async def test_prompts_have_the_reference_token_ids(
    texts: list[str], images: list[bytes], reference: Reference
) -> None:
    tokenizer = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
    prompter = Prompter(tokenizer, max_tokens=32768)
    image_pad = tokenizer.token_to_id("<|image_pad|>")
    for name, item in reference_items("retrieval", texts, images).items():
        [prompt] = await prompter.prompts([item])
        assert isinstance(prompt, Prompt)
        expected = reference[name.rpartition("/")[0] + "/tokens"].tolist()
        if isinstance(item.content, Image):
            # The engine puts as many placeholders as the image has patches; the rest is ours.
            at = expected.index(image_pad)
            expected = [token for token in expected if token != image_pad]
            expected.insert(at, image_pad)
        assert prompt.token_ids == expected, name
