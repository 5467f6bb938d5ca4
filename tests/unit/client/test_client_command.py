"""The command's exit status and messages, and what the client imports."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.exit_status import exit_status
from tests.unit.client.bulk import LONG, Strict
from tests.unit.client.fakes import Deployment, refusal
from triptych.router.client import AsyncClient
from triptych.router.client import __main__ as command

ROOT = Path(__file__).parents[3]


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Strict()

    def client(url: str, key: str | None, **options: Any) -> AsyncClient:
        assert key is None
        return deployment.async_client(**options)

    monkeypatch.setattr("triptych.router.client.clients.AsyncClient", client)
    # An empty key counts as missing.
    monkeypatch.setenv(command.KEY_VARIABLE, "")
    return deployment


def embed(folder: Path, *options: str, lines: str = "one\ntwo\n") -> int:
    (folder / "in.txt").write_text(lines)
    return exit_status(command.embed, folder / "in.txt", folder / "out.npy", *options)


def test_successful_run(tmp_path: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(tmp_path) == 0
    assert "2 rows" in capsys.readouterr().err
    assert deployment.asked[0]["task"] == "retrieval.passage"
    # The second run does not overwrite the file.
    assert embed(tmp_path) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.usefixtures("deployment")
def test_failed_rows_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = f"one\n{LONG} two\n"
    assert embed(tmp_path, lines=lines) == 1
    said = capsys.readouterr().err
    assert "row 1 " in said
    assert "--on-error skip" in said
    assert embed(tmp_path, "--on-error", "skip", lines=lines) == 3
    assert "out.npy.failed.jsonl" in capsys.readouterr().err


def test_server_error_exit_status(
    tmp_path: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.script = [refusal(401, "AUTH_MISSING_API_KEY", "send a key")] * 2
    assert embed(tmp_path) == 1
    assert "error: send a key (401 AUTH_MISSING_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--batch=513", "--batch=0", "--dimensions=2049", "--concurrency=0", "--task=code"]
)
def test_options_out_of_range_are_refused(tmp_path: Path, option: str) -> None:
    assert embed(tmp_path, option) == 2


def test_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    program = (
        "import sys; sys.modules['pyarrow'] = None\nfrom triptych.router.client.__main__ import cli; cli()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "embed", str(tmp_path / "in.txt"), str(tmp_path / "out.parquet")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: this needs pyarrow, which is not installed: pip install 'triptych[bulk]'\n"
