"""Engines on merged variants of v5 and v3 give the vectors of transformers with unmerged adapters."""

from collections.abc import Iterator
from typing import NamedTuple

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
BARS = {"float32": 0.999999, "bfloat16": 0.999}
ADAPTERS = {V5_SMALL: "retrieval", V5_NANO: "clustering", V3: "retrieval-passage"}


class Engine(NamedTuple):
    """An engine that is served here."""

    family: Family
    dtype: str

    @property
    def pool(self) -> str:
        return self.family.pool(ADAPTERS[self.family])


ENGINES = [
    Engine(V5_SMALL, "float32"),
    Engine(V5_SMALL, "bfloat16"),
    Engine(V5_NANO, "bfloat16"),
    Engine(V3, "float32"),
    Engine(V3, "bfloat16"),
]
every_engine = pytest.mark.parametrize(
    "engine", ENGINES, ids=lambda engine: "-".join((engine[0].key, engine[1]))
)
every_family = pytest.mark.parametrize("family", ADAPTERS, ids=lambda family: family.key)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Reference]:
    """A tiny checkpoint of each family in transformers."""
    folder = tmp_path_factory.mktemp("families")
    for family in ADAPTERS:
        assert exit_status(cli, "tiny", folder / family.key, "--model", family.name) == 0
    return {family: Reference(family, folder / family.key) for family in ADAPTERS}


@pytest.fixture(scope="module")
def served(
    references: dict[Family, Reference], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Engine, Worker]]:
    """A worker for each engine."""
    out = tmp_path_factory.mktemp("family-variants")
    for family, reference in references.items():
        pool = family.pool(ADAPTERS[family])
        assert exit_status(cli, "merge", reference.folder, out, "--pool", pool, "--dtype", "float32") == 0
    limits = {"max_tokens": MAX_TOKENS, "batch_tokens": BATCH_TOKENS, "kv_cache_gib": 0.5}
    settings = [{"model": out / engine.pool, "dtype": engine.dtype, **limits} for engine in ENGINES]
    with workers(tmp_path_factory.mktemp("family-workers"), *settings) as started:
        yield dict(zip(ENGINES, started, strict=True))


def expected(reference: Reference, text: str, role: Role) -> NDArray[np.float32]:
    token_ids = reference.token_ids(text, role, MAX_TOKENS)
    return reference.vector(ADAPTERS[reference.family], token_ids).numpy()


@every_engine
def test_variant_gives_vectors_of_transformers(
    engine: Engine, served: dict[Engine, Worker], references: dict[Family, Reference]
) -> None:
    reference = references[engine.family]
    asked = [(text, role) for role in engine.family.prefixes for text in TEXTS]
    frames = served[engine].encode([Item(Text(*each), truncate=True) for each in asked])
    for (text, role), frame in zip(asked, frames, strict=True):
        vector = array_of(frame)
        assert cosine(vector, expected(reference, text, role)) >= BARS[engine.dtype], (text, role)
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


@every_engine
def test_vector_is_cut_before_it_is_normalized(
    engine: Engine, served: dict[Engine, Worker], references: dict[Family, Reference]
) -> None:
    texts = [Text(text, "query") for text in TEXTS]
    frames = served[engine].encode([Item(text, dimensions=32, truncate=True) for text in texts])
    for text, frame in zip(texts, frames, strict=True):
        vector = array_of(frame)
        wanted = expected(references[engine.family], text.text, "query")[:32]
        assert cosine(vector, wanted) >= BARS[engine.dtype]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@every_engine
def test_chunks_are_pooled_in_their_document(
    engine: Engine, served: dict[Engine, Worker], references: dict[Family, Reference]
) -> None:
    chunks = ("The river begins in the mountains.", "It ends in the sea.")
    [frame] = served[engine].encode([Item(Document(chunks, "passage"))])
    if not engine.family.late_chunking:
        assert isinstance(frame, Failure)
        assert frame.code == "unsupported"
        return
    reference = references[engine.family]
    states = reference.states(ADAPTERS[engine.family], reference.token_ids(" ".join(chunks), "passage"))
    # Without the final special token.
    end = len(reference.token_ids(chunks[0], "passage")) - 1
    wanted = np.array([states[:end].mean(0).numpy(), states[end:].mean(0).numpy()])
    assert cosine(array_of(frame), wanted) >= BARS[engine.dtype]
