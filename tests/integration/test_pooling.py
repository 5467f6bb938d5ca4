"""What a worker gives for each form of output, alone and in company."""

import io
import random

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.engine_workers import Worker
from tests.integration.conftest import BATCH_TOKENS, MAX_TOKENS, OFFICIAL
from tests.vectors import Array, array_of, cosine
from triptych.workers.shared.contract import (
    ENCODE_PATH,
    INFO_PATH,
    POOLS,
    EncodeRequest,
    Failure,
    Image,
    Item,
    Text,
    Vector,
    decode_info,
    encode_request,
)

FULL = 256


@pytest.fixture
def worker(pools: dict[str, Worker]) -> Worker:
    return pools["retrieval"]


def one(worker: Worker, item: Item) -> Array:
    [frame] = worker.encode([item])
    return array_of(frame)


@pytest.mark.parametrize("dimensions", [1, 2, 100, 128, 255, 256])
def test_dimensions_cut_and_normalise_again(worker: Worker, dimensions: int) -> None:
    content = Text("cut me to size", "passage")
    full = one(worker, Item(content))
    cut = one(worker, Item(content, dimensions=dimensions))
    assert cut.shape == (dimensions,)
    head = full[:dimensions]
    np.testing.assert_allclose(cut, head / np.linalg.norm(head), atol=1e-6)


def test_unnormalised_vectors_point_the_same_way(worker: Worker, texts: list[str]) -> None:
    for text in (texts[0], texts[-1]):
        unit = one(worker, Item(Text(text, "query")))
        mean = one(worker, Item(Text(text, "query"), normalized=False))
        assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
        assert abs(np.linalg.norm(mean) - 1) > 1e-3
        assert cosine(unit, mean) > 0.999999


def every_kind(texts: list[str], images: list[bytes]) -> list[Item]:
    """Plain and unusual items, short and over several prefill chunks."""
    items = []
    for number, text in enumerate([*texts, *(f"{number} and counting" for number in range(20))]):
        content = Text(text, "query" if number % 2 else "passage")
        items += [
            Item(content),
            Item(content, dimensions=32 + number),
            Item(content, normalized=False),
            Item(content, multivector=True),
        ]
    for image in images:
        items += [Item(Image(image)), Item(Image(image), dimensions=64), Item(Image(image), multivector=True)]
    return items


def test_vector_is_independent_of_its_batch(worker: Worker, texts: list[str], images: list[bytes]) -> None:
    items = every_kind(texts, images)
    alone = [one(worker, item) for item in items]
    for seed in (1, 2):
        order = list(range(len(items)))
        random.Random(seed).shuffle(order)
        together = worker.encode([items[place] for place in order])
        for place, frame in zip(order, together, strict=True):
            vector = array_of(frame)
            assert cosine(vector, alone[place]) > 0.999999, items[place]
            np.testing.assert_allclose(np.linalg.norm(vector), np.linalg.norm(alone[place]), rtol=1e-4)


def test_longest_text_takes_several_chunks(worker: Worker, texts: list[str]) -> None:
    """Holds the tests above to what they claim."""
    [frame] = worker.encode([Item(Text(texts[-1], "query"))])
    assert frame.tokens > 3 * BATCH_TOKENS


def test_pools_give_different_vectors(pools: dict[str, Worker]) -> None:
    item = Item(Text("the same text in every pool", "query"))
    vectors = [one(pools[pool], item) for pool in POOLS]
    for number, vector in enumerate(vectors):
        for other in vectors[:number]:
            assert cosine(vector, other) < 0.999


def test_roles_give_different_vectors(worker: Worker) -> None:
    query, passage = (one(worker, Item(Text("which role", role))) for role in ("query", "passage"))
    assert cosine(query, passage) < 0.9999


def test_empty_text_is_its_prefix(worker: Worker) -> None:
    assert np.isfinite(one(worker, Item(Text("", "query")))).all()


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


def test_text_over_the_context_is_refused_or_cut(worker: Worker) -> None:
    text = "over and " * MAX_TOKENS
    good = Item(Text("well within", "query"))
    refused, fine, cut = worker.encode(
        [Item(Text(text, "query")), good, Item(Text(text, "query"), truncate=True, dimensions=8)]
    )
    assert isinstance(refused, Failure)
    assert refused.code == "token_limit"
    assert str(MAX_TOKENS) in refused.message
    assert isinstance(fine, Vector)
    assert isinstance(cut, Vector)
    assert cut.tokens == MAX_TOKENS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not a"),
        (b"not an image at all", "is not a"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is not a"),
    ],
)
def test_bad_image_fails_alone(worker: Worker, images: list[bytes], data: bytes, reason: str) -> None:
    first, bad, last = worker.encode([Item(Image(images[0])), Item(Image(data)), Item(Text("fine", "query"))])
    assert isinstance(first, Vector)
    assert isinstance(last, Vector)
    assert isinstance(bad, Failure)
    assert bad.code == "media_invalid"
    assert reason in bad.message


def test_cut_image_fails_alone(worker: Worker, images: list[bytes]) -> None:
    whole = images[-1]
    good, bad = worker.encode([Item(Image(whole)), Item(Image(whole[: len(whole) // 2]))])
    assert isinstance(good, Vector)
    assert isinstance(bad, Failure)
    assert bad.code == "media_invalid"


def test_empty_batch_has_an_empty_reply(worker: Worker) -> None:
    assert worker.encode([]) == []


def test_body_that_is_no_batch_is_refused(worker: Worker) -> None:
    reply = httpx.post(worker.url + ENCODE_PATH, content=b"\xc1 nonsense")
    assert reply.status_code == 400


def test_leaving_caller_disturbs_no_other(worker: Worker, texts: list[str]) -> None:
    body = encode_request(EncodeRequest([Item(Text(texts[-1] + str(n), "query")) for n in range(8)]))
    with httpx.stream("POST", worker.url + ENCODE_PATH, content=body) as reply:
        assert reply.status_code == 200
    assert np.isfinite(one(worker, Item(Text("still here", "query")))).all()


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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_changes_no_vector(worker: Worker, form: str) -> None:
    """The model's own code takes the pixels as they are stored."""
    picture = Pillow.effect_mandelbrot((140, 84), (-2, -1.2, 1, 1.2), 50).convert("RGB")
    exif = Pillow.Exif()
    items = []
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        picture.save(buffer, form, exif=exif.tobytes())
        items.append(Item(Image(buffer.getvalue())))
    buffer = io.BytesIO()
    picture.save(buffer, form)
    plain = one(worker, Item(Image(buffer.getvalue())))
    for frame in worker.encode(items):
        assert cosine(array_of(frame), plain) > 0.999999
