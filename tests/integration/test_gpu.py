"""What is different on a GPU: CUDA graphs, engines that share a card, spawned processes, and its memory.

Skipped without a GPU. Not run on one yet.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine_workers import Worker, workers
from tests.integration.test_reference import Reference, reference_items
from tests.processes import descendants, wait_gone
from tests.vectors import array_of, cosine
from triptych.workers.shared.contract import POOLS, Frame, Item, Text, Vector

pytestmark = pytest.mark.gpu

# In bfloat16 on a CPU the worst cosine with the model's own code is 0.9998, of single token vectors 0.9989.
DENSE, MULTI = 0.999, 0.995
# Each engine is told its cache, so that it does not take most of the card.
CACHE_GIB = 1
# Takes all memory of the card that is free, says so, and keeps it until its input ends.
BALLAST = """
import sys, torch
held, size = [], 1 << 30
while size >= 1 << 21:
    try:
        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        size >>= 1
print("full", flush=True)
sys.stdin.read()
"""


def settings(variants: Path, pool: str, **more: object) -> dict[str, Any]:
    its = {"model": variants / pool, "task": pool, "dtype": "bfloat16", "kv_cache_gib": CACHE_GIB}
    return its | more


def assert_alike(names: list[str], frames: list[Frame], others: list[Any]) -> None:
    for name, frame, other in zip(names, frames, others, strict=True):
        assert cosine(array_of(frame), other) >= (MULTI if name.endswith("multi") else DENSE), name


@contextmanager
def full_card() -> Iterator[None]:
    """Inside, the card has no free memory."""
    command, pipe = [sys.executable, "-c", BALLAST], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as ballast:
        assert ballast.stdout is not None
        assert ballast.stdout.readline() == "full\n"
        yield


def test_cuda_graphs_do_not_change_vectors(
    variants: Path, tmp_path: Path, texts: list[str], images: list[bytes], reference: Reference
) -> None:
    named = reference_items("code", texts, images)
    names, items = list(named), list(named.values())
    eager_or_not = [settings(variants, "code", enforce_eager=eager) for eager in (True, False)]
    with workers(tmp_path, *eager_or_not) as [eager, graphs]:
        expected = [array_of(frame) for frame in eager.encode(items)]
        together = graphs.encode(items)
        # Each batch size has a graph of its own, padded to the next size that was captured.
        alone = [frame for item in items for frame in graphs.encode([item])]
    for frames in (together, alone):
        assert_alike(names, frames, expected)
        assert_alike(names, frames, [reference[name] for name in names])


def test_three_engines_share_a_card(
    variants: Path, tmp_path: Path, texts: list[str], images: list[bytes], reference: Reference
) -> None:
    with workers(tmp_path, *(settings(variants, pool) for pool in POOLS)) as started:
        for pool, worker in zip(POOLS, started, strict=True):
            items = reference_items(pool, texts, images)
            frames = worker.encode(list(items.values()))
            assert_alike(list(items), frames, [reference[name] for name in items])


def test_spawned_engine_loads_the_plugin(variants: Path, tmp_path: Path) -> None:
    """On CUDA vLLM forks by default. A forked engine lacks our batch message and outlives its worker."""
    with workers(tmp_path, settings(variants, "code")) as [worker]:
        # More than one text of a batch goes to the engine by the plugin's message.
        frames = worker.encode([Item(Text(f"text {number}", "query")) for number in range(32)])
        assert all(isinstance(frame, Vector) for frame in frames)
        below = descendants(worker.pid)
        assert below, "the engine runs in a process of its own"
        os.kill(worker.pid, signal.SIGKILL)
        assert wait_gone(below)


def test_out_of_memory_in_a_batch_ends_the_worker_with_the_reason(
    variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor starts another, which answers."""
    # Otherwise PyTorch keeps the memory of the largest step from the start on, and no step needs more.
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    # Graphs keep memory of their own.
    its = settings(variants, "code", enforce_eager=True)
    items = [Item(Text(f"{number} " + "a long way to go " * 200, "query")) for number in range(20)]
    with workers(tmp_path, its) as [worker]:
        assert isinstance(worker.encode(items[:1])[0], Vector)
        with full_card(), pytest.raises(httpx.RemoteProtocolError):
            worker.encode(items)
        assert worker.wait() == 1
        log = worker.log.read_text()
        assert "out of memory" in log
        assert "the engine has died; ending this worker" in log
    next_worker = Worker(tmp_path / "next.log", **its)
    try:
        assert all(isinstance(frame, Vector) for frame in next_worker.wait_until_ready().encode(items))
    finally:
        next_worker.kill()
