"""A bulk run and rows, disks and arguments that fail: what is said, and what is kept."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pyarrow import parquet as pq

from router.client.bulk.job import Job
from router.client.bulk.problems import Refused, RowFailed
from tests.unit.client.bulk import LONG, TEXTS, Strict, do, job
from tests.unit.client.fakes import Deployment, matrix_of, refusal

BAD = [*TEXTS[:6], f"{LONG} 6", *TEXTS[7:10], f"{LONG} 10", *TEXTS[11:]]


def test_a_row_that_fails_stops_the_run_and_is_named(tmp_path: Path) -> None:
    wanted = job(tmp_path, BAD, concurrency=1)
    with pytest.raises(RowFailed, match=r"row 6 \(the first is 0\): INPUT_TOKEN_LIMIT_EXCEEDED: too many"):
        do(wanted, Strict())
    assert not wanted.out.exists()
    # What stopped it may be mended by skipping, with the work kept.
    outcome = do(job(tmp_path, BAD, skip=True), Strict())
    assert outcome.earlier == 4


@pytest.mark.parametrize("out", ["out.npy", "out.parquet"])
def test_rows_that_fail_can_be_skipped(tmp_path: Path, out: str) -> None:
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


def test_whole_batches_of_failed_rows_are_skipped_too(tmp_path: Path) -> None:
    texts = [f"{LONG} {number}" for number in range(8)] + TEXTS[8:]
    wanted = job(tmp_path, texts, skip=True, concurrency=1)
    do(wanted, Strict())
    found = np.load(wanted.out)
    assert np.isnan(found[:8]).all()
    np.testing.assert_array_equal(found[8:], matrix_of(texts[8:], 16))


def test_a_run_of_which_every_row_failed_is_tried_anew_by_the_same_command(tmp_path: Path) -> None:
    texts = [LONG] * 5
    wanted = job(tmp_path, texts, skip=True)
    for _ in range(2):
        with pytest.raises(Refused, match=r"all 5 rows failed; row 0: INPUT_TOKEN.*same command tries"):
            do(wanted, Strict())
    listed = [json.loads(line) for line in wanted.beside("failed.jsonl").read_text().splitlines()]
    assert [line["row"] for line in listed] == list(range(5))
    mended = do(wanted, Deployment())
    assert (mended.earlier, mended.failures) == (0, {})
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(texts, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([wanted.source.name, wanted.out.name])


def test_a_row_that_cannot_be_read_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    wanted = job(tmp_path, ending="jsonl")
    wanted.source.write_text('{"text": "a"}\n{"text": "b"}\n{"text": 3}\n')
    deployment = Deployment()
    with pytest.raises(RowFailed, match=r"row 2 .*int"):
        do(wanted, deployment)
    assert deployment.requests == []
    outcome = do(job_like(wanted, skip=True), deployment)
    assert outcome.failures.keys() == {2}


def job_like(wanted: Job, **change: Any) -> Job:
    return Job(**(vars(wanted) | change))


def test_a_request_that_is_too_large_is_sent_in_smaller_ones(tmp_path: Path) -> None:
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
        ({"id": "id"}, "no room for ids"),
        ({"texts": []}, "no rows"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    deployment = Deployment()
    wanted = job(tmp_path, **change)
    if change == {"texts": []}:
        wanted.source.write_text("")
    with pytest.raises(Refused, match=message):
        do(wanted, deployment)
    assert deployment.requests == []


def test_a_full_disk_is_said_before_the_first_vector_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 10})
    )
    with pytest.raises(Refused, match="GB free"):
        do(job(tmp_path), Deployment())


def test_a_disk_that_fails_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = os.pwrite, 0

    def failing(*arguments: Any) -> int:
        nonlocal count
        count += 1
        if count == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    wanted = job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        with pytest.raises(OSError, match="No space"):
            do(wanted, Deployment())
    assert do(wanted, Deployment()).earlier > 0
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))
