"""Fixtures: upstream layouts to modify, and the command line in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.exit_status import exit_status
from tests.unit.checkpoints.files import UPSTREAM, Tensors, edit_json, edit_tensors, weights
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.adapters import CONFIG, WEIGHTS
from triptych.workers.checkpoints.layout import INDEX


class Upstream:
    """A copy of the fixture checkpoint that a test may modify."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def base(self) -> Tensors:
        return weights(self.path)

    def adapters(self) -> Tensors:
        return weights(self.path / "adapters")

    def change_adapters(self, change: Callable[[Tensors], object]) -> None:
        edit_tensors(self.path / "adapters" / WEIGHTS, change)

    def change_json(self, name: str, **values: Any) -> None:
        edit_json(self.path / name, **values)

    def change_adapter_config(self, **values: Any) -> None:
        self.change_json(f"adapters/{CONFIG}", **values)

    def rename_base(self, rename: Callable[[str], str]) -> None:
        for file in self.path.glob("model-*"):
            save_file({rename(name): tensor for name, tensor in load_file(file).items()}, file)
        index = json.loads((self.path / INDEX).read_text())
        self.change_json(INDEX, weight_map={rename(name): file for name, file in index["weight_map"].items()})


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(Path(shutil.copytree(UPSTREAM, tmp_path / "upstream")))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command for checkpoints; returns status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = exit_status(cli, *arguments)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Merges a source, checks that nothing was written, and returns the error."""

    def refused(source: Path, *options: str) -> str:
        status, _, error = run("merge", source, tmp_path / "out", *options)
        assert status == 1
        assert not list(tmp_path.glob("out/*"))
        return error

    return refused


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture checkpoint merged into float32; read-only."""
    out = tmp_path_factory.mktemp("merged")
    assert exit_status(cli, "merge", UPSTREAM, out, "--dtype", "float32") == 0
    return out


@pytest.fixture
def variant(merged: Path, tmp_path: Path) -> Path:
    """A variant that a test may modify."""
    return Path(shutil.copytree(merged / "code", tmp_path / "code"))
