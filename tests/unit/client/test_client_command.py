"""The command's exit status and messages, and what the client imports."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.exit_status import exit_status
from tests.unit.client.fakes import Deployment, refusal
from triptych.router.client import AsyncClient
from triptych.router.client import __main__ as command

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "router" / "client"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment()

    def client(url: str, key: str | None, **options: Any) -> AsyncClient:
        return deployment.async_client(**options)

    monkeypatch.setattr("triptych.router.client.asynchronous.AsyncClient", client)
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


def test_failed_rows_exit_status(
    tmp_path: Path,
    deployment: Deployment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def embeddings(asked: dict[str, Any]) -> Any:
        if "two" in asked["input"]:
            return refusal(400, "INPUT_TOKEN_LIMIT_EXCEEDED", "too long")
        return Deployment.embeddings(deployment, asked)

    monkeypatch.setattr(deployment, "embeddings", embeddings)
    assert embed(tmp_path) == 1
    said = capsys.readouterr().err
    assert "row 1 " in said
    assert "--on-error skip" in said
    assert embed(tmp_path, "--on-error", "skip") == 3
    assert "out.npy.failed.jsonl" in capsys.readouterr().err


def test_server_error_exit_status(
    tmp_path: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.script = [refusal(401, "AUTH_MISSING_API_KEY", "send a key")] * 2
    assert embed(tmp_path) == 1
    assert "error: send a key (401 AUTH_MISSING_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--batch", "513"],
        ["--batch", "0"],
        ["--dimensions", "2049"],
        ["--concurrency", "0"],
        ["--task", "code"],
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: list[str]) -> None:
    assert embed(tmp_path, *options) == 2


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


def names_in(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_client_and_router_do_not_mix() -> None:
    for path in CLIENT.rglob("*.py"):
        house = {name for name in names_in(path) if name.startswith("triptych")}
        own = {
            name for name in house if name == "triptych.router" or name.startswith("triptych.router.client")
        }
        shared = {
            name
            for name in house
            if name.startswith(("triptych.router.api.schema", "triptych.router.errors"))
        }
        assert house == own | shared, path
    for path in (ROOT / "router").rglob("*.py"):
        if not path.is_relative_to(CLIENT):
            assert not [name for name in names_in(path) if name.startswith("triptych.router.client")], path


def test_client_imports_nothing_of_server() -> None:
    program = (
        "import sys; before = set(sys.modules); import triptych.router.client\n"
        "new = set(sys.modules) - before\n"
        "print(*sorted(n for n in new if n.startswith('triptych.') and 'client' not in n))\n"
        "heavy = {'pydantic', 'uvicorn', 'aiohttp', 'pyarrow', 'tqdm'}\n"
        "print(*sorted({n.split('.')[0] for n in new} & heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["triptych.router"]
