"""The three pools as real engines on the upstream fixture, started once for all tests here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine_workers import Worker, workers
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.__main__ import main as checkpoints
from triptych.workers.shared.contract import POOLS

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream-tiny"
# Far below the longest reference text (2,991 tokens), so that it is prefilled in several chunks.
BATCH_TOKENS = 512


# For `code`: a batch of some hundred items takes many steps.
ITEMS_PER_STEP = 4


@pytest.fixture(scope="package")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture merged for all three tasks: `code` in its own bfloat16, the others in float32."""
    folder = tmp_path_factory.mktemp("variants")
    for pool in POOLS:
        dtype = "source" if pool == "code" else "float32"
        assert checkpoints(["merge", str(UPSTREAM), str(folder), "--task", pool, "--dtype", dtype]) == 0
    return folder


# Not for the session: other tests need the memory of these engines.
@pytest.fixture(scope="package")
def pools(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """A worker for each pool, which compute in float32."""
    settings: list[dict[str, Any]] = [
        {
            "model": variants / pool,
            "task": pool,
            "dtype": "float32",
            "batch_tokens": BATCH_TOKENS,
            "kv_cache_gib": 0.5,
        }
        for pool in POOLS
    ]
    settings[POOLS.index("code")]["batch_items"] = ITEMS_PER_STEP
    with workers(tmp_path_factory.mktemp("workers"), *settings) as started:
        yield dict(zip(POOLS, started, strict=True))


@pytest.fixture(scope="package")
def official(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker on `code` in the layout of `jina-embeddings-v4-vllm-*` folders, with their max_pixels."""
    folder = stock_copy(variants / "code", tmp_path_factory.mktemp("official") / "code")
    processor = json.loads((folder / layout.PREPROCESSOR).read_text())
    (folder / layout.PREPROCESSOR).write_text(json.dumps(processor | {"max_pixels": 12_845_056}))
    settings = {"model": folder, "task": "code", "dtype": "float32", "kv_cache_gib": 0.5}
    with workers(tmp_path_factory.mktemp("official-worker"), settings) as [worker]:
        yield worker


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
