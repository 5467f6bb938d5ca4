"""One engine with unmerged adapters gives the vectors of the model's own code, whatever shares its steps."""

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from msgspec.structs import replace

from tests.engine_workers import Worker, workers
from tests.exit_status import exit_status
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.integration.conftest import UPSTREAM, every_form, settings_of
from tests.integration.test_reference import Reference, reference_items
from tests.vectors import array_of, cosine
from triptych.loadtests.server_processes import Router
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.shared.contract import POOLS, Document, Image, Text
from triptych.workers.shared.families import V4

# Dense and multi-vectors. Merged and stored in bfloat16 they are 0.9998 and 0.9989.
BARS = {"float32": (0.9999999, 0.9999999), "bfloat16": (0.9999, 0.9998)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """A worker that holds all adapters in each dtype."""
    folder = tmp_path_factory.mktemp("shared")
    assert exit_status(cli, "merge", UPSTREAM, folder, "--pool", "shared", "--dtype", "float32") == 0
    settings = [settings_of("shared", folder / "shared") | {"dtype": dtype} for dtype in BARS]
    with workers(folder, *settings) as started:
        yield dict(zip(BARS, started, strict=True))


@pytest.mark.parametrize("dtype", BARS)
def test_mixed_batch_gives_the_reference_vectors(
    shared: dict[str, Worker], dtype: str, texts: list[str], images: list[bytes], reference: Reference
) -> None:
    items = {
        name: replace(item, adapter=pool)
        for pool in POOLS
        for name, item in reference_items(pool, texts, images).items()
    }
    names = list(items)
    random.Random(1).shuffle(names)
    dense, multi = BARS[dtype]
    for name, frame in zip(names, shared[dtype].encode([items[name] for name in names]), strict=True):
        bar = multi if items[name].multivector else dense
        assert cosine(array_of(frame), reference[name]) >= bar, name


def test_every_form_equals_a_merged_engine(
    shared: dict[str, Worker], pools: dict[str, Worker], texts: list[str], images: list[bytes]
) -> None:
    queries: list[Text | Image] = [Text("what is asked", "query"), Image(images[0])]
    # Short, and over several steps.
    chunks = Document(tuple(texts[-1][at : at + 2000] for at in range(0, len(texts[-1]), 2000)), "passage")
    items = every_form([Text(texts[0], "query"), Text(texts[-1], "passage"), Image(images[-1]), chunks])
    merged = pools["retrieval"].encode(items, queries=queries)
    others = [replace(item, adapter=name) for name in ("code", "text-matching") for item in items]
    batch = [replace(item, adapter="retrieval") for item in items] + others
    found = shared["float32"].encode(batch, queries=queries)
    for item, wanted, ours, other in zip(items, merged, found, found[len(items) :], strict=False):
        assert array_of(ours).shape == array_of(wanted).shape
        assert cosine(array_of(ours), array_of(wanted)) >= 0.9999999, item
        np.testing.assert_allclose(array_of(ours), array_of(wanted), atol=1e-5)
        assert not np.allclose(array_of(other), array_of(wanted), atol=1e-3)


def test_router_serves_all_tasks_with_one_worker(
    shared: dict[str, Worker], texts: list[str], reference: Reference, tmp_path: Path
) -> None:
    router = Router(tmp_path / "log", [("shared", shared["float32"].url)])
    asked = [(number, task, route) for number in range(3) for task, route in V4.tasks.items()]
    try:
        with httpx.Client(base_url=router.wait_until_ready().url, timeout=GUARD_SECONDS) as client:
            body = {"input": [{"text": texts[number], "task": task} for number, task, _ in asked]}
            reply = client.post("/v1/embeddings", json=body)
            ranking = client.post("/v1/rerank", json={"query": "a", "documents": texts[:3]})
    finally:
        router.kill()
    assert reply.status_code == ranking.status_code == 200, reply.text
    for entry, (number, task, route) in zip(reply.json()["data"], asked, strict=True):
        wanted = reference[f"text/{route.adapter}/{route.role}/{number}/dense"]
        assert cosine(np.float32(entry["embedding"]), wanted) >= 0.9999999, task
    spaces = dict(part.split("=") for part in reply.headers["x-vector-space"].split(", "))
    assert spaces.keys() == set(POOLS)
    assert len(set(spaces.values())) == len(POOLS)
    assert ranking.headers["x-vector-space"] == f"retrieval={spaces['retrieval']}"
