"""The bulk command, killed or stopped: the same command continues and repeats no batch."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.frames import text_of, vector_of
from tests.fakes.process import ROOT
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.worker import FakeWorker, fake_workers
from triptych.workers.shared.contract import Item, Text

ROWS, BATCH = 103, 8
TEXTS = [f"row {number}" for number in range(ROWS)]
BATCHES = set(range(-(-ROWS // BATCH)))


def done_batches(folder: Path) -> set[int]:
    journal = folder / "out.npy.journal"
    if not journal.exists():
        return set()
    lines = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return {json.loads(line)["batch"] for line in lines[1:]}


async def embed(
    folder: Path, router: RunningRouter, worker: FakeWorker, how: signal.Signals | None = None
) -> tuple[int, str, set[int]]:
    """Run the command, and with `how` end it after some batches: its status, its words, and what it sent."""
    corpus, before, finished = folder / "corpus.txt", len(worker.items), done_batches(folder)
    corpus.write_text("\n".join(TEXTS))
    worker.mode = "held" if how else "healthy"
    worker.script.extend(["healthy"] * 4 if how else [])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "triptych.router.client", "embed", str(corpus), str(folder / "out.npy")),
        *("--url", str(router.client.base_url), "--task", "retrieval.query"),
        *("--batch", str(BATCH), "--concurrency", "3"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NO_PROXY": "*"},
    )
    if how:
        await eventually(lambda: len(done_batches(folder)) > len(finished))
        process.send_signal(how)
    words, _ = await process.communicate()
    assert process.returncode is not None
    sent = {TEXTS.index(text_of(item)) // BATCH for item in worker.items[before:]}
    return process.returncode, words.decode(), sent


# tests/unit/client/test_bulk_resume.py has every moment of a crash, and .parquet.
@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
async def test_ended_command_continues(tmp_path: Path, how: signal.Signals, status: int) -> None:
    worker = FakeWorker(dimensions=16)
    async with fake_workers(worker), running_router(worker, batch_items=BATCH) as router:
        finished: set[int] = set()
        for _ in range(2):
            ended, words, sent = await embed(tmp_path, router, worker, how)
            assert ended == status, words
            assert ("The same command continues" in words) == (how == signal.SIGINT)
            assert "Traceback" not in words
            assert not (tmp_path / "out.npy").exists()
            assert not finished & sent, "a finished batch was embedded again"
            finished = done_batches(tmp_path)
        ended, words, sent = await embed(tmp_path, router, worker)
        assert ended == 0, words
        assert sent == BATCHES - finished
    expected = [vector_of("retrieval", Item(Text(text, "query")), 16).data for text in TEXTS]
    assert np.load(tmp_path / "out.npy").tobytes() == b"".join(expected)
