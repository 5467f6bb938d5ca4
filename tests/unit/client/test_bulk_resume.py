"""A bulk run that continues: no batch is repeated, and no vectors are mixed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.unit.client.bulk import LONG, TEXTS, Strict, do, job
from tests.unit.client.fakes import Deployment, matrix_of, refusal, reply_to
from tests.unit.client.test_bulk_source import write
from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.journal import Journal
from triptych.router.client.bulk.problems import Refused
from triptych.router.client.errors import Internal, Invalid


class Crash(Exception):
    """Simulates the end of the process: nothing reaches the disk afterwards."""


def crash_at(monkeypatch: pytest.MonkeyPatch, last: int) -> Callable[[], int]:
    """Allow `last` disk operations, do half of the next, and none after it. Returns a counter."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(first: Any, *rest: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count <= last:
                return real(first, *rest, **options)
            if count == last + 1 and name == "write":
                data = memoryview(rest[0])
                real(first, data[: len(data) // 2], *rest[1:])
            raise Crash

        monkeypatch.setattr(os, name, wrapped)

    for name in ("write", "fsync", "fdatasync", "ftruncate", "rename", "unlink"):
        wrap(name)
    return lambda: count


@pytest.mark.parametrize("out", ["out.npy", "out.parquet"])
def test_crash_at_any_moment_repeats_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    texts = [*TEXTS[:13], LONG]

    def fresh(name: str) -> Job:
        (tmp_path / name).mkdir()
        return job(tmp_path / name, texts, out=out, skip=True)

    whole = fresh("whole")
    do(whole, Strict())
    # 3 operations for the journal, 3 for each of 4 batches, some more at the end.
    moments = 0
    while True:
        crashed = fresh(str(moments))
        with monkeypatch.context() as patch:
            count = crash_at(patch, moments)
            try:
                do(crashed, Strict())
            except Crash:
                pass
            else:
                assert count() == moments
                break
        done = {}
        if crashed.journal.exists():
            complete = crashed.journal.read_bytes().rpartition(b"\n")[0].splitlines()
            done = {json.loads(line)["batch"] for line in complete[1:]}
        again = Strict()
        if crashed.out.exists() and not crashed.journal.exists():
            with pytest.raises(Refused, match="exists already"):
                do(crashed, again)
        else:
            outcome = do(crashed, again)
            assert outcome.failures.keys() == {13}
            assert outcome.earlier == sum(len(texts[4 * number : 4 * number + 4]) for number in done)
        assert crashed.out.read_bytes() == whole.out.read_bytes(), moments
        assert crashed.beside("failed.jsonl").read_bytes() == whole.beside("failed.jsonl").read_bytes()
        repeated = [asked["input"] for asked in again.asked if len(asked["input"]) == 4]
        assert not [texts for texts in repeated if int(texts[0].split()[1]) // 4 in done]
        assert len(again.asked) <= 1 + (4 - len(done)) + 2
        moments += 1
    assert moments > 15


def stopped_half_way(folder: Path, *script: httpx.Response, **options: Any) -> Job:
    """A run with some finished batches. `script` has the deployment's first replies."""

    class Stopping(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            return refusal(500, "") if len(self.asked) > 5 else super().embeddings(asked)

    wanted = job(folder, **options)
    with pytest.raises(Internal):
        do(wanted, Stopping(*script))
    assert len(wanted.journal.read_bytes().splitlines()) > 2
    return wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": 8}, "dimensions was 16 and is now 8"),
        ({"task": "code.query"}, "task was not given and is now code.query"),
        ({"batch": 5}, "batch was 4 and is now 5"),
        ({"dtype": "float16"}, "dtype was float32 and is now float16"),
        ({"truncate": True}, "truncate"),
        ({"texts": [*TEXTS[:-1], "other"]}, "the input file has changed"),
    ],
)
def test_changed_options_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    wanted = stopped_half_way(tmp_path)
    deployment = Deployment()
    with pytest.raises(Refused, match=message) as refused:
        do(job(tmp_path, **change), deployment)
    assert deployment.requests == []
    assert f"remove {wanted.journal} and {wanted.partial}" in str(refused.value)
    write(tmp_path, "txt", TEXTS)
    assert do(wanted, deployment).earlier > 0


def test_continues_only_in_same_space(tmp_path: Path) -> None:
    wanted = stopped_half_way(tmp_path)
    done = wanted.journal.read_bytes()
    other = Deployment()
    other.space = "other"
    with pytest.raises(Refused, match="other weights"):
        do(wanted, other)
    assert other.asked == []
    assert wanted.journal.read_bytes() == done
    assert do(wanted, Deployment()).earlier > 0
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))


def test_upgrade_during_run_stops_it(tmp_path: Path) -> None:
    class Upgraded(Deployment):
        def answer(self, request: httpx.Request) -> httpx.Response:
            if len(self.asked) == 3:
                self.space = "other"
            return super().answer(request)

    wanted = job(tmp_path, concurrency=1)
    with pytest.raises(Refused, match="other weights"):
        do(wanted, Upgraded())
    assert len(wanted.journal.read_text().splitlines()) == 1 + 3
    assert do(wanted, Deployment()).earlier == 12


def test_waits_for_pool_to_learn_space(tmp_path: Path) -> None:
    """At first no worker is up, so the router names no space."""
    starting = [
        httpx.Response(503, json={"ready": False, "pools": {}, "vector_spaces": {"text-matching": []}}),
        refusal(503, "SERVICE_UNAVAILABLE"),
    ]
    wanted = stopped_half_way(tmp_path, *starting)
    other = Deployment()
    other.space = "other"
    with pytest.raises(Refused, match="other weights"):
        do(wanted, other)


def test_run_without_space_is_not_continued(tmp_path: Path) -> None:
    no_space = httpx.Response(200, json={"ready": True, "pools": {}})
    wanted = stopped_half_way(
        tmp_path, no_space, httpx.Response(200, json=reply_to({"input": ["a"]})), no_space
    )
    deployment = Deployment()
    with pytest.raises(Refused, match="named no vector space"):
        do(wanted, deployment)
    assert deployment.asked == []


def test_options_may_change_before_first_batch(tmp_path: Path) -> None:
    fault = {"field": "body -> dimensions", "message": "too many", "type": "le", "input": 16}
    deployment = Deployment(httpx.Response(200, json={"ready": True, "pools": {}}))
    deployment.script += [refusal(422, "VALIDATION_ERROR", errors=[fault])] * 9
    with pytest.raises(Invalid):
        do(job(tmp_path, skip=True), deployment)
    # A wrong option is not searched for among the rows.
    assert len(deployment.requests) <= 1 + 3
    do(job(tmp_path, dimensions=8), Deployment())


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    wanted = job(tmp_path)
    deployment = Deployment()
    with Journal(wanted.journal, {}, ""), pytest.raises(Refused, match="another process"):
        do(wanted, deployment)
    assert deployment.requests == []


@pytest.mark.parametrize("size", [20, 100_000])
def test_input_that_changes_during_the_run_gives_no_output(tmp_path: Path, size: int) -> None:
    # More than one read of the file.
    texts = [f"row {number} {'x' * 100}" for number in range(500)]
    wanted = job(tmp_path, texts, batch=8)

    class Changes(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            os.truncate(wanted.source, size)
            return super().embeddings(asked)

    with pytest.raises(Refused, match="has changed during the run; start over"):
        do(wanted, Changes())
    assert not wanted.out.exists()


@pytest.mark.parametrize(
    "content", [b"hello\nworld\n", b"7\n", b"[]\n", b'{"a":1}\n{"b":2}\n', b"{}\n7\n", bytes(64) + b"\n"]
)
def test_damaged_journal_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    wanted = job(tmp_path)
    wanted.journal.write_bytes(content)
    with pytest.raises(Refused, match=r"is damaged, .* start over"):
        do(wanted, Deployment())
    assert wanted.journal.read_bytes() == content


def test_line_that_does_not_fit_damages_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    write_all = os.write
    with Journal(path, {}, "") as journal:
        journal.begin(None)
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda file, data: write_all(file, data[:5]))
            with pytest.raises(OSError, match="No space left"):
                journal.add(0, {})
        journal.add(1, {})
    with Journal(path, {}, "") as journal:
        assert journal.done == {1}
