"""JSON files, and folders that appear whole or not at all."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints.layout import CheckpointError

_PARTIAL = ".partial-"


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises `CheckpointError`."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder`, and let one process at a time write into it. The others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block succeeds; the parent is `locked`.

    Removes what killed processes left of `folder`. Syncs everything to disk before renaming.
    """
    # A link stays, and its target is replaced.
    folder = folder.resolve()
    prefix = f".{folder.name}{_PARTIAL}"
    _remove(folder.parent, prefix)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)
        for root, _, names in os.walk(partial):
            for name in (*names, "."):
                _sync(Path(root, name))
        if folder.exists():
            folder.rename(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        _remove(folder.parent, prefix)


def is_partial(folder: Path) -> bool:
    """Whether `folder` is the temporary folder of a running or killed `whole_folder`."""
    name = folder.resolve().name
    return name.startswith(".") and _PARTIAL in name


def _remove(parent: Path, prefix: str) -> None:
    for left in parent.iterdir():
        if left.name.startswith(prefix):
            shutil.rmtree(left)


def _sync(path: Path) -> None:
    with _opened(path) as handle:
        os.fsync(handle)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
