"""What changes the vector space."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import UPSTREAM
from workers.checkpoints import layout
from workers.checkpoints.__main__ import main as checkpoints
from workers.checkpoints.space import vector_space
from workers.checkpoints.variant import read_variant


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    assert checkpoints(["merge", str(UPSTREAM), str(folder)]) == 0
    return folder


def silent(title: str, nbytes: int) -> Callable[[int], object]:
    return lambda done: None


def space_of(folder: Path, *, dtype: str = "float32", quantization: str | None = None) -> str:
    digest = read_variant(folder).digest
    return vector_space(folder, digest, dtype=dtype, quantization=quantization, progress=silent)


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_tasks_have_different_spaces(merged: Path) -> None:
    spaces = {space_of(merged / task) for task in ("retrieval", "text-matching", "code")}
    assert len(spaces) == 3
    assert all(len(space) == 16 for space in spaces)


def test_copy_has_the_same_space(merged: Path, tmp_path: Path) -> None:
    shutil.copytree(merged / "code", tmp_path / "copy")
    for key in ("_name_or_path", "transformers_version", "torch_dtype"):
        changed(tmp_path / "copy", layout.CONFIG, lambda config, key=key: config.update({key: "other"}))
    assert space_of(tmp_path / "copy") == space_of(merged / "code")


def test_weights_are_read_without_record(merged: Path) -> None:
    read: list[int] = []

    def progress(title: str, nbytes: int) -> Callable[[int], object]:
        return read.append

    computed = vector_space(merged / "code", None, dtype="float32", quantization=None, progress=progress)
    assert computed == space_of(merged / "code")
    assert sum(read) > 1 << 20


@pytest.mark.parametrize("option", [{"dtype": "bfloat16"}, {"quantization": "fp8"}])
def test_dtype_changes_space(merged: Path, option: dict[str, str]) -> None:
    assert space_of(merged / "code", **option) != space_of(merged / "code")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (layout.CONFIG, lambda config: config.update(rms_norm_eps=0.5)),
        (layout.PREPROCESSOR, lambda config: config.update(image_mean=[0, 0, 0])),
        (layout.TOKENIZER, lambda tokenizer: tokenizer["model"].update(unk_token="x")),
    ],
)
def test_files_change_space(
    merged: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = tmp_path / "code"
    shutil.copytree(merged / "code", folder)
    changed(folder, name, change)
    assert space_of(folder) != space_of(merged / "code")
