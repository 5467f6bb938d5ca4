"""The three pools and two cross-encoders as real engines, started once for all tests here."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cross_encoders import Score, write_bert, write_published
from tests.engine_workers import Worker, workers
from tests.exit_status import exit_status
from tests.unit.checkpoints.files import UPSTREAM, edit_json
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.shared.contract import POOLS, Document, Image, Item, Text

# Far below the longest reference text (2,991 tokens), so that it is prefilled in several chunks.
BATCH_TOKENS = 512
# For `code`: a batch of some hundred items takes many steps.
ITEMS_PER_STEP = 4
MAX_TOKENS = 20 * BATCH_TOKENS
# Its variant has the layout of `jina-embeddings-v4-vllm-*` folders, without a projector for multi-vectors.
OFFICIAL = "text-matching"

CrossEncoders = dict[Callable[[Path], Score], tuple[Worker, Score]]


@pytest.fixture(scope="package")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture merged for all three tasks: `code` in its own bfloat16, the others in float32."""
    folder = tmp_path_factory.mktemp("variants")
    for pool in POOLS:
        dtype = "source" if pool == "code" else "float32"
        assert exit_status(cli, "merge", UPSTREAM, folder, "--pool", pool, "--dtype", dtype) == 0
    return folder


# Not for the session: other tests need the memory of these engines.
@pytest.fixture(scope="package")
def pools(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """A worker for each pool."""
    settings = {pool: settings_of(pool, variants / pool) for pool in POOLS}
    settings[OFFICIAL]["model"] = official_copy(
        variants / OFFICIAL, tmp_path_factory.mktemp("official") / OFFICIAL
    )
    settings["code"]["batch_items"] = ITEMS_PER_STEP
    with workers(tmp_path_factory.mktemp("workers"), *settings.values()) as started:
        yield dict(zip(settings, started, strict=True))


@pytest.fixture
def worker(pools: dict[str, Worker]) -> Worker:
    return pools["retrieval"]


@pytest.fixture(scope="package")
def cross_encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossEncoders]:
    """A worker for each kind of cross-encoder, and its scores in transformers."""
    folder = tmp_path_factory.mktemp("cross-encoders")
    scores = {write: write(folder / write.__name__) for write in (write_published, write_bert)}
    settings = [settings_of("rerank", folder / write.__name__) for write in scores]
    with workers(folder, *settings) as started:
        yield dict(zip(scores, zip(started, scores.values(), strict=True), strict=True))


def settings_of(pool: str, model: Path) -> dict[str, Any]:
    """The settings of a worker that computes in float32."""
    return {
        "model": model,
        "task": pool,
        "dtype": "float32",
        "batch_tokens": BATCH_TOKENS,
        "kv_cache_gib": 0.5,
        "max_tokens": MAX_TOKENS,
    }


def official_copy(variant: Path, folder: Path) -> Path:
    """Copy a variant into the layout of official folders, with their max_pixels."""
    stock_copy(variant, folder)
    edit_json(folder / layout.PREPROCESSOR, max_pixels=12_845_056)
    return folder


def every_form(contents: Sequence[Text | Image | Document]) -> list[Item]:
    """An item for each form of output, those of scores against two queries."""
    items = []
    for content in contents:
        items += [Item(content), Item(content, dimensions=64), Item(content, normalized=False)]
        if not isinstance(content, Document):
            items.append(Item(content, multivector=True))
            items += [Item(content, against=0), Item(content, against=1)]
    return items


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """The texts of the reference vectors."""
    loaded: list[str] = json.loads((UPSTREAM / "reference_texts.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """The images of the reference vectors, as PNG."""
    return [path.read_bytes() for path in sorted(UPSTREAM.glob("reference_image_*.png"))]


@pytest.fixture(scope="session")
def reference() -> dict[str, NDArray[np.float32]]:
    """What the model's own published code gives: unmerged adapters, float32."""
    with np.load(UPSTREAM / "reference.npz") as arrays:
        return dict(arrays)
