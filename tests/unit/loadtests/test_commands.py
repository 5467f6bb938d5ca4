"""The exit codes of runs and searches, and results that cannot be written."""

import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.status import Status

from tests.unit.loadtests import sample_run
from triptych.loadtests import commands, results
from triptych.loadtests.__main__ import parser
from triptych.loadtests.calm import Unusable
from triptych.loadtests.one_run import Progress
from triptych.loadtests.recording import Timeline, Total
from triptych.loadtests.results import Capacity, Limit, Run, Segment


class Closed(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def stopped() -> Run:
    return sample_run.build([sample_run.constant()])


def searched(rate: float, limit: Limit = "server") -> Run:
    run = sample_run.searched()
    assert isinstance(run.capacity, Capacity)
    run.capacity.rate, run.capacity.limited_by = rate, limit
    return run


@pytest.mark.parametrize(
    ("finished", "code"),
    [
        (searched(412.0), commands.PASSED),
        (searched(412.0, "replies"), commands.PASSED),
        (searched(0.0), commands.FAILED),
        (searched(0.0, "replies"), commands.NO_RESULT),
        (stopped(), commands.NO_RESULT),
    ],
)
def test_exit_code_of_a_search(
    finished: Run, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(lambda *_: finished, monkeypatch, "find-capacity", tmp_path) == code
    assert (tmp_path / "report.html").exists()


def ended(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, command: str, out: Path | None = None
) -> int:
    """The exit code of a command with `run`; the real one sends requests."""
    monkeypatch.setitem(sys.modules, "triptych.loadtests.one_run", SimpleNamespace(run=run))  # type: ignore[arg-type]
    folder = ["--out", str(out)] if out else []
    return commands.main(parser().parse_args([command, "--url", "http://127.0.0.1:1", *folder]))


def test_unusable_folder_is_named_before_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> Run:
        raise AssertionError("the load began")

    (tmp_path / "file").touch()
    assert ended(run, monkeypatch, "run", tmp_path / "file") == commands.NO_RESULT
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_full_disk_leaves_the_printed_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert ended(lambda *_: stopped(), monkeypatch, "run", tmp_path) == commands.NO_RESULT
    printed = capsys.readouterr()
    assert "At 200 requests/s" in printed.out
    assert "run.json" in printed.err


def test_closed_output_leaves_the_written_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    assert ended(lambda *_: stopped(), monkeypatch, "run", tmp_path) == commands.NO_RESULT
    assert results.read(tmp_path).segments


def test_closed_output_ends_a_load_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another exception would end the process with a code of its own."""
    total = Total(Timeline([Segment(name="steady", seconds=1, rate=1)], 1.0), [])
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        Progress(Status("")).watch(total, 0.5)


def test_run_without_result_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Run:
        raise Unusable("it does not answer")

    monkeypatch.chdir(tmp_path)
    assert ended(run, monkeypatch, "run") == commands.NO_RESULT
    assert list(tmp_path.glob("build/loadtests/*")) == []


def test_run_of_an_older_format_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"version": 1, "segments": [{"rate": "another type"}]}')
    assert commands.main(parser().parse_args(["report", str(tmp_path)])) == commands.NO_RESULT
    assert f"{file}: format version 1" in capsys.readouterr().err


def test_two_runs_of_one_second_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.time, "strftime", lambda _: "now")
    codes = [ended(lambda *_: stopped(), monkeypatch, "run") for _ in range(2)]
    assert codes == [commands.PASSED, commands.NO_RESULT]
    assert "now-interactive-constant" in capsys.readouterr().err
