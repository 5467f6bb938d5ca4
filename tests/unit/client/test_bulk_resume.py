"""A bulk run that goes on: no work is done twice, and nothing is mixed."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from router.client.bulk.job import Job
from router.client.bulk.problems import Refused
from router.client.errors import Internal, Invalid, SpaceMismatch
from tests.unit.client.bulk import LONG, TEXTS, Strict, batches_of, do, job
from tests.unit.client.fakes import Deployment, matrix_of, refusal
from tests.unit.client.test_bulk_source import write


class Crash(Exception):
    """Stands for the end of the process: after it, nothing reaches the disk."""


def crash_at(monkeypatch: pytest.MonkeyPatch, last: int) -> Callable[[], int]:
    """Let `last` operations on the disk pass, do half of the next, and none after; gives their count."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(first: Any, *rest: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count <= last:
                return real(first, *rest, **options)
            if count == last + 1 and name in ("write", "pwrite"):
                data = memoryview(rest[0])
                real(first, data[: len(data) // 2], *rest[1:])
            raise Crash

        monkeypatch.setattr(os, name, wrapped)

    for name in ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "unlink"):
        wrap(name)
    return lambda: count


@pytest.mark.parametrize("out", ["out.npy", "out.parquet"])
def test_after_a_crash_at_any_moment_the_same_command_finishes_without_repeating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    texts = [*TEXTS[:13], LONG]

    def fresh(name: str) -> Job:
        (tmp_path / name).mkdir()
        return job(tmp_path / name, texts, out=out, skip=True)

    whole = fresh("whole")
    do(whole, Strict())
    # Journal: 3 operations; each of the 4 batches: 4; the end: some more.
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
            with pytest.raises(Refused, match="there already"):
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
    assert moments > 20


def test_batches_done_before_a_failure_are_kept(tmp_path: Path) -> None:
    class Failing(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            if TEXTS[24] in asked["input"]:
                return refusal(500, "INTERNAL_ERROR")
            return super().embeddings(asked)

    wanted = job(tmp_path, concurrency=1)
    with pytest.raises(Internal):
        do(wanted, Failing())
    again = Deployment()
    assert do(wanted, again).earlier == 24
    assert batches_of(again) == [TEXTS[start : start + 4] for start in range(24, 41, 4)]
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))


def stopped_half_way(folder: Path, **options: Any) -> Job:
    """A run of which some batches are done."""

    class Stopping(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            return refusal(500, "") if len(self.asked) > 5 else super().embeddings(asked)

    wanted = job(folder, **options)
    with pytest.raises(Internal):
        do(wanted, Stopping())
    assert len(wanted.journal.read_bytes().splitlines()) > 2
    return wanted


def test_a_line_that_a_crash_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    wanted = stopped_half_way(tmp_path, concurrency=1)
    with wanted.journal.open("ab") as file:
        file.write(b'{"batch": 9, "fai')
    assert stopped_half_way(tmp_path, concurrency=1) == wanted
    assert do(wanted, Deployment()).earlier == 36
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))


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
def test_a_run_is_not_continued_with_anything_else(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    wanted = stopped_half_way(tmp_path)
    deployment = Deployment()
    with pytest.raises(Refused, match=message) as refused:
        do(job(tmp_path, **change), deployment)
    assert deployment.requests == []
    assert f"remove {wanted.journal} and {wanted.partial}" in str(refused.value)
    write(tmp_path, "txt", TEXTS)
    assert do(wanted, deployment).earlier > 0


class OtherWeights(Deployment):
    """Gives other vectors."""

    def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
        return super().embeddings(asked | {"input": [f"other {item}" for item in asked["input"]]})


def test_a_run_is_not_continued_with_other_weights(tmp_path: Path) -> None:
    wanted = stopped_half_way(tmp_path)
    deployment = OtherWeights()
    with pytest.raises(Refused, match="other weights"):
        do(wanted, deployment)
    assert len(deployment.asked) == 1
    assert do(wanted, Deployment()).earlier > 0


def test_other_weights_are_found_before_anything_of_theirs_is_kept(tmp_path: Path) -> None:
    slow, last = set(TEXTS[:12]), TEXTS[24]

    class SlowToBegin(Deployment):
        """Batches 0 to 2 wait until 3 to 5 are done, which are when 6 comes; then all fail."""

        async def answer_later(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/ready":
                return self.answer(request)
            texts = json.loads(request.content)["input"]
            if last in texts:
                over.set()
            if slow & set(texts):
                await over.wait()
            return refusal(500, "") if over.is_set() else self.answer(request)

    over = asyncio.Event()
    wanted = job(tmp_path, concurrency=4)
    with pytest.raises(Internal):
        do(wanted, SlowToBegin())
    done = wanted.journal.read_bytes()
    assert [json.loads(line)["batch"] for line in done.splitlines()[1:]] == [3, 4, 5]
    slower = job(tmp_path, concurrency=1)
    with pytest.raises(Refused, match="other weights"):
        do(slower, OtherWeights())
    assert slower.journal.read_bytes() == done
    do(slower, Deployment())
    np.testing.assert_array_equal(np.load(slower.out), matrix_of(TEXTS, 16))


class TwoSpaces(Deployment):
    """Serves one vector space, and after `batches` of them another, as in an upgrade."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def answer(self, request: httpx.Request) -> httpx.Response:
        space = "old" if len(self.asked) < self.batches else "new"
        if request.url.path == "/ready":
            spaces = {"text-matching": [space]}
            return httpx.Response(200, json={"ready": True, "pools": {}, "vector_spaces": spaces})
        if request.headers["x-require-vector-space"] != f"text-matching={space}":
            return refusal(412, "VECTOR_SPACE_MISMATCH")
        return super().answer(request)


def test_a_run_takes_no_vectors_of_another_space_than_it_began_with(tmp_path: Path) -> None:
    wanted = job(tmp_path, concurrency=1)
    with pytest.raises(SpaceMismatch):
        do(wanted, TwoSpaces(3))
    assert len(wanted.journal.read_text().splitlines()) == 1 + 3
    assert do(wanted, TwoSpaces(1000)).earlier == 12


class Forgetful(Deployment):
    """Some rows, which it embedded before, it can reach no more; `gone` holds them."""

    def __init__(self, gone: list[str]) -> None:
        super().__init__()
        self.gone = gone

    def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
        if set(self.gone) & set(asked["input"]):
            return refusal(400, "INPUT_MEDIA_UNREACHABLE", "the host does not answer")
        return super().embeddings(asked)


@pytest.mark.parametrize("skip", [True, False])
def test_a_done_row_that_cannot_be_embedded_again_does_not_end_the_run(tmp_path: Path, skip: bool) -> None:
    wanted = stopped_half_way(tmp_path, concurrency=1, skip=skip)
    other = OtherWeights()
    other.script = [httpx.Response(200, json={"ready": True, "pools": {}})]
    other.script += [refusal(400, "INPUT_MEDIA_UNREACHABLE")] * 3
    with pytest.raises(Refused, match="other weights"):
        do(wanted, other)
    assert do(wanted, Forgetful(TEXTS[:5])).earlier >= 20
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(TEXTS, 16))


def test_when_no_done_row_can_be_compared_the_run_is_not_continued(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(60)]
    wanted = job(tmp_path, texts, skip=True, concurrency=1)

    class Stopping(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            return refusal(500, "") if texts[-4] in asked["input"] else super().embeddings(asked)

    with pytest.raises(Internal):
        do(wanted, Stopping())
    done = wanted.journal.read_bytes()
    forgetful = Forgetful(texts)
    with pytest.raises(Refused, match=r"16 rows .* row 0: INPUT_MEDIA_UNREACHABLE: the host") as refused:
        do(wanted, forgetful)
    assert f"remove {wanted.journal} and {wanted.partial}" in str(refused.value)
    # Not each of the thousands that there may be, and not all from one place.
    asked = [item for asked in forgetful.asked for item in asked["input"]]
    assert asked == [text for start in range(0, 32, 4) for text in texts[start : start + 2]]
    assert wanted.journal.read_bytes() == done
    do(wanted, Deployment())
    np.testing.assert_array_equal(np.load(wanted.out), matrix_of(texts, 16))


def test_a_failure_that_is_of_no_row_ends_the_comparison(tmp_path: Path) -> None:
    wanted = stopped_half_way(tmp_path)
    deployment = Deployment(httpx.Response(200, json={"ready": True, "pools": {}}), refusal(500, ""))
    with pytest.raises(Internal):
        do(wanted, deployment)
    assert len(deployment.requests) == 2


def test_options_that_never_worked_may_be_changed(tmp_path: Path) -> None:
    fault = {"field": "body -> dimensions", "message": "too many", "type": "le", "input": 16}
    deployment = Deployment(httpx.Response(200, json={"ready": True, "pools": {}}))
    deployment.script += [refusal(422, "VALIDATION_ERROR", errors=[fault])] * 9
    with pytest.raises(Invalid):
        do(job(tmp_path, skip=True), deployment)
    # An option is no row's fault, so it is not sought among the rows.
    assert len(deployment.requests) <= 1 + 3
    do(job(tmp_path, dimensions=8), Deployment())


def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    wanted = job(tmp_path)

    class Nosy(Deployment):
        def embeddings(self, asked: dict[str, Any]) -> httpx.Response:
            if len(self.asked) == 1:
                raise AssertionError from _refusal_of(wanted)
            return super().embeddings(asked)

    with pytest.raises(AssertionError) as seen:
        do(wanted, Nosy())
    assert "another process" in str(seen.value.__cause__)


def _refusal_of(wanted: Job) -> Exception:
    try:
        do(wanted, Deployment())
    except Refused as error:
        return error
    return ValueError("it was not refused")
