"""Engines on merged variants of v5 and v3 give the vectors of transformers with unmerged adapters."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine_workers import Worker, workers
from tests.exit_status import exit_status
from tests.family_references import Reference
from tests.vectors import array_of, cosine
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.shared.contract import Document, Failure, Item, Role, Text
from triptych.workers.shared.families import V3, V5_NANO, V5_SMALL, Family

# The longest text is cut, and takes several chunks where prompts are prefilled in chunks.
MAX_TOKENS, BATCH_TOKENS = 1024, 256
TEXTS = ["", "Ships at sea.", "海滩上美丽的日落", "the lighthouse keeper wrote down each ship " * 200]
# The adapter, the dtype of the engine, and the bar for it.
SERVED: dict[Family, tuple[str, str, float]] = {
    V5_SMALL: ("retrieval", "float32", 0.999999),
    V5_NANO: ("clustering", "bfloat16", 0.999),
    V3: ("retrieval-passage", "float32", 0.999999),
}
every_family = pytest.mark.parametrize("family", SERVED, ids=lambda family: family.key)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Reference]:
    """A tiny checkpoint of each family in transformers."""
    folder = tmp_path_factory.mktemp("families")
    for family in SERVED:
        assert exit_status(cli, "tiny", folder / family.key, "--model", family.name) == 0
    return {family: Reference(family, folder / family.key) for family in SERVED}


@pytest.fixture(scope="module")
def served(
    references: dict[Family, Reference], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Family, Worker]]:
    """A worker of each family."""
    out = tmp_path_factory.mktemp("family-variants")
    settings = []
    for family, (adapter, dtype, _) in SERVED.items():
        pool, source = family.pool(adapter), references[family].folder
        assert exit_status(cli, "merge", source, out, "--task", pool, "--dtype", "float32") == 0
        limits = {"max_tokens": MAX_TOKENS, "batch_tokens": BATCH_TOKENS, "kv_cache_gib": 0.5}
        settings.append({"model": out / pool, "dtype": dtype, **limits})
    with workers(tmp_path_factory.mktemp("family-workers"), *settings) as started:
        yield dict(zip(SERVED, started, strict=True))


def expected(reference: Reference, family: Family, text: str, role: Role) -> NDArray[np.float32]:
    token_ids = reference.token_ids(text, role, MAX_TOKENS)
    return reference.vector(SERVED[family][0], token_ids).numpy()


@every_family
def test_variant_gives_vectors_of_transformers(
    family: Family, served: dict[Family, Worker], references: dict[Family, Reference]
) -> None:
    reference = references[family]
    asked = [(text, role) for role in family.prefixes for text in TEXTS]
    frames = served[family].encode([Item(Text(*each), truncate=True) for each in asked])
    for (text, role), frame in zip(asked, frames, strict=True):
        vector = array_of(frame)
        assert cosine(vector, expected(reference, family, text, role)) >= SERVED[family][2], (text, role)
        assert frame.tokens == len(reference.token_ids(text, role, MAX_TOKENS))
    assert frames[len(TEXTS) - 1].cut == 0


@every_family
def test_reference_tells_adapters_apart(family: Family, references: dict[Family, Reference]) -> None:
    """Otherwise the test above would pass with any adapter."""
    token_ids = references[family].token_ids(TEXTS[1], "query")
    vectors = [references[family].vector(adapter, token_ids).numpy() for adapter in family.adapters]
    for number, vector in enumerate(vectors):
        for other in vectors[:number]:
            assert cosine(vector, other) < 0.999


@every_family
def test_vector_is_cut_before_it_is_normalized(
    family: Family, served: dict[Family, Worker], references: dict[Family, Reference]
) -> None:
    texts = [Text(text, "query") for text in TEXTS]
    frames = served[family].encode([Item(text, dimensions=32, truncate=True) for text in texts])
    for text, frame in zip(texts, frames, strict=True):
        vector = array_of(frame)
        wanted = expected(references[family], family, text.text, "query")[:32]
        assert cosine(vector, wanted) >= SERVED[family][2]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@every_family
def test_chunks_are_pooled_in_their_document(
    family: Family, served: dict[Family, Worker], references: dict[Family, Reference]
) -> None:
    chunks = ("The river begins in the mountains.", "It ends in the sea.")
    [frame] = served[family].encode([Item(Document(chunks, "passage"))])
    if not family.late_chunking:
        assert isinstance(frame, Failure)
        assert frame.code == "unsupported"
        return
    reference = references[family]
    states = reference.states(SERVED[family][0], reference.token_ids(" ".join(chunks), "passage"))
    # Without the final special token.
    end = len(reference.token_ids(chunks[0], "passage")) - 1
    wanted = np.array([states[:end].mean(0).numpy(), states[end:].mean(0).numpy()])
    assert cosine(array_of(frame), wanted) >= SERVED[family][2]
