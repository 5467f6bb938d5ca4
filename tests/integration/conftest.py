"""The three pools as real engines on the upstream fixture, started once for all tests here."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtests.server_processes import Worker, workers
from workers.checkpoints.__main__ import main as checkpoints
from workers.shared.contract import POOLS

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream-tiny"
# Far below the longest reference text (2,991 tokens), so that it is prefilled in several chunks.
BATCH_TOKENS = 512


@pytest.fixture(scope="package")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture merged for all three tasks, written in float32."""
    folder = tmp_path_factory.mktemp("variants")
    assert checkpoints(["merge", str(UPSTREAM), str(folder), "--dtype", "float32"]) == 0
    return folder


# Not for the session: other tests need the memory of these engines.
@pytest.fixture(scope="package")
def pools(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """A worker for each pool."""
    settings = [{"model": variants / pool, "task": pool, "batch_tokens": BATCH_TOKENS} for pool in POOLS]
    with workers(tmp_path_factory.mktemp("workers"), *settings) as started:
        yield dict(zip(POOLS, started, strict=True))


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
