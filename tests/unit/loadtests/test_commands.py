"""The exit code of a search."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.loadtests import sample_run
from triptych.loadtests import commands
from triptych.loadtests.__main__ import parser
from triptych.loadtests.results import Capacity, Limit, Run


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
    # The real one sends requests.
    monkeypatch.setitem(sys.modules, "triptych.loadtests.one_run", SimpleNamespace(run=lambda *_: finished))  # type: ignore[arg-type]
    options = ["find-capacity", "--url", "http://127.0.0.1:1", "--out", str(tmp_path)]
    assert commands.main(parser().parse_args(options)) == code
    assert (tmp_path / "report.html").exists()
