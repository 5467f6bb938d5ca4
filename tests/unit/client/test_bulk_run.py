"""A bulk run: the right vectors in the right rows, bounded memory, and failing rows, disks and arguments."""

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from pyarrow import parquet as pq

from tests.unit.client.bulk import LONG, TEXTS, Strict, do, job
from tests.unit.client.fakes import Deployment, matrix_of, refusal
from triptych.router.client.bulk.problems import Refused, RowFailed
from triptych.router.client.bulk.run import Outcome
from triptych.router.client.errors import ConnectionLost, ReplyInvalid


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


BAD = [*TEXTS[:6], f"{LONG} 6", *TEXTS[7:10], f"{LONG} 10", *TEXTS[11:]]


def test_failed_row_stops_run(tmp_path: Path) -> None:
    wanted = job(tmp_path, BAD, concurrency=1)
    with pytest.raises(RowFailed, match=r"row 6 .*INPUT_TOKEN_LIMIT_EXCEEDED"):
        do(wanted, Strict())
    assert not wanted.out.exists()
    # Skipping continues with the finished batches.
    outcome = do(job(tmp_path, BAD, skip=True), Strict())
    assert outcome.earlier == 4


@pytest.mark.parametrize("out", ["out.npy", "out.parquet"])
def test_failed_rows_can_be_skipped(tmp_path: Path, out: str) -> None:
    wanted = job(tmp_path, BAD, out=out, skip=True)
    outcome = do(wanted, Strict())
    assert outcome.failures.keys() == {6, 10}
    found = (
        np.load(wanted.out)
        if out == "out.npy"
        else np.stack(pq.read_table(wanted.out)["embedding"].to_numpy())
    )
    right = matrix_of(BAD, 16)
    right[[6, 10]] = np.nan
    np.testing.assert_array_equal(found, right)
    listed = [json.loads(line) for line in wanted.beside("failed.jsonl").read_text().splitlines()]
    assert [line["row"] for line in listed] == [6, 10]
    assert "too many tokens" in listed[0]["reason"]


def test_batch_of_failed_rows_is_skipped(tmp_path: Path) -> None:
    texts = [f"{LONG} {number}" for number in range(8)] + TEXTS[8:]
    wanted = job(tmp_path, texts, skip=True, concurrency=1)
    do(wanted, Strict())
    found = np.load(wanted.out)
    assert np.isnan(found[:8]).all()
    np.testing.assert_array_equal(found[8:], matrix_of(texts[8:], 16))


def test_halves_of_a_batch_have_one_width(tmp_path: Path) -> None:
    class Unequal(Strict):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            second_half = asked["input"] == [TEXTS[7]]
            return super().embeddings({**asked, "dimensions": 1} if second_half else asked)

    with pytest.raises(ReplyInvalid, match=r"different lengths: \[1, 8\]"):
        do(job(tmp_path, BAD, skip=True, dimensions=None), Unequal())


def test_run_with_all_rows_failed_is_retried(tmp_path: Path) -> None:
    texts = [LONG] * 5
    wanted = job(tmp_path, texts, skip=True)
    for _ in range(2):
        with pytest.raises(Refused, match=r"all 5 rows failed"):
            do(wanted, Strict())
    listed = [json.loads(line) for line in wanted.beside("failed.jsonl").read_text().splitlines()]
    assert [line["row"] for line in listed] == list(range(5))
    mended = do(wanted, Deployment())
    assert (mended.earlier, mended.failures) == (0, {})
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(texts, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([wanted.source.name, wanted.out.name])


def test_unreadable_row_is_found_before_sending(tmp_path: Path) -> None:
    wanted = job(tmp_path, ending="jsonl")
    wanted.source.write_text('{"text": "a"}\n{"text": "b"}\n{"text": 3}\n')
    deployment = Deployment()
    with pytest.raises(RowFailed, match=r"row 2 .*int"):
        do(wanted, deployment)
    assert deployment.requests == []
    outcome = do(replace(wanted, skip=True), deployment)
    assert outcome.failures.keys() == {2}


def test_too_large_request_is_split(tmp_path: Path) -> None:
    class Small(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            return refusal(413, "INPUT_TOO_LARGE") if len(asked["input"]) > 1 else super().embeddings(asked)

    wanted = job(tmp_path)
    assert do(wanted, Small()).failures == {}
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "out.txt"}, r"\.npy or \.parquet"),
        ({"out": "no/out.npy"}, "not a folder"),
        ({"id": "id"}, "cannot hold ids"),
        ({"texts": [], "ending": "jsonl"}, "no rows"),
    ],
)
def test_impossible_job_is_refused_before_sending(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    deployment = Deployment()
    with pytest.raises(Refused, match=message):
        do(job(tmp_path, **change), deployment)
    assert deployment.requests == []


@pytest.mark.parametrize(("out", "copies"), [("out.npy", 1), ("out.parquet", 2)])
def test_full_disk_is_refused_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, copies: int
) -> None:
    wanted = job(tmp_path, out=out)
    free = copies * matrix_of(TEXTS, 16).nbytes - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(Refused, match="GB free"):
        do(wanted, Deployment())
    free += 1
    do(wanted, Deployment())
