"""A bulk run gives the right vectors in the right rows, in bounded memory."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pyarrow import parquet as pq

from tests.unit.client.bulk import TEXTS, do, job
from tests.unit.client.fakes import Deployment, matrix_of
from triptych.router.client.bulk.run import Outcome
from triptych.router.client.errors import ConnectionLost


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("out", ["out.npy", "out.parquet"])
def test_every_format_gives_right_vectors(tmp_path: Path, ending: str, out: str) -> None:
    wanted = job(tmp_path, ending=ending, out=out)
    deployment = Deployment()
    assert do(wanted, deployment) == Outcome(41, 0, {})
    if out == "out.npy":
        found = np.load(wanted.out)
    else:
        table = pq.read_table(wanted.out)
        assert table["row"].to_pylist() == list(range(41))
        found = np.stack(table["embedding"].to_numpy())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, matrix_of(TEXTS, 16))
    assert deployment.busiest == 3
    assert sorted(os.listdir(tmp_path)) == sorted([wanted.source.name, out])


def test_options_and_bulk_priority_are_sent(tmp_path: Path) -> None:
    deployment = Deployment()
    do(job(tmp_path, task="code.passage", truncate=True), deployment)
    assert deployment.asked[0] == {
        "input": TEXTS[:4],
        "embedding_type": "base64",
        "task": "code.passage",
        "dimensions": 16,
        "truncate": True,
    }
    assert {r.headers["x-priority"] for r in deployment.requests if r.method == "POST"} == {"bulk"}


def test_id_that_is_not_utf8_does_not_stop_the_end_of_a_run(tmp_path: Path) -> None:
    wanted = job(tmp_path, ending="csv", out="out.parquet", id="id")
    wanted.source.write_bytes(b"id,text\n\xff7,one\n8,two\n")
    do(wanted, Deployment())
    assert pq.read_table(wanted.out)["id"].to_pylist() == ["\ufffd7", "8"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_row_groups_have_ids_and_float16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("triptych.router.client.bulk.parquet.GROUP_BYTES", 10 * 16 * 2)
    wanted = job(tmp_path, ending=ending, out="out.parquet", id="id", dtype="float16")
    do(wanted, Deployment())
    file = pq.ParquetFile(wanted.out)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 10, 10, 1]
    assert file.read()["id"].to_pylist() == [str(number) for number in range(41)]
    found = np.stack(file.read()["embedding"].to_numpy())
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, matrix_of(TEXTS, 16).astype(np.float16))


def test_missing_server_fails_at_once(tmp_path: Path) -> None:
    deployment = Deployment(httpx.ConnectError("refused"))
    with pytest.raises(ConnectionLost, match="refused"):
        do(job(tmp_path), deployment)
    assert len(deployment.requests) == 1


@pytest.mark.parametrize(("ending", "out"), [("jsonl", "out.npy"), ("csv", "out.parquet")])
def test_memory_is_bounded(tmp_path: Path, ending: str, out: str) -> None:
    class Forgetful(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            self.asked.clear()
            self.requests.clear()
            return super().embeddings(asked)

    def peak(rows: int) -> int:
        folder = tmp_path / str(rows)
        folder.mkdir()
        wanted = job(folder, [f"{number} {'x' * 2000}" for number in range(rows)], ending, out, batch=16)
        tracemalloc.start()
        try:
            do(wanted, Forgetful())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)
    # With fewer rows, garbage that is not collected yet dominates.
    assert peak(3000) < 3 * peak(500)
