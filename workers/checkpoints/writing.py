"""Folders that appear whole or not at all, and safetensors files written as their data comes."""

import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from workers.checkpoints import layout
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.shards import ITEM_BYTES


class Spec(NamedTuple):
    """A tensor that is going to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@contextmanager
def whole_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name once the block has ended well.

    One process at a time writes beside another's output; the next waits. What a killed one left behind
    under `folder`'s temporary name is removed. Everything is on disk before the name changes. Raises
    `CheckpointError` where `folder` exists and is not to be replaced.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)
        prefix = layout.partial_prefix(folder.name)
        _remove(folder.parent, prefix)
        if folder.exists() and not replace:
            raise CheckpointError(f"{folder} exists already; remove it or choose another name")
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            yield partial
            partial.chmod(0o755)
            _sync_tree(partial)
            if folder.exists():
                folder.rename(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            partial.rename(folder)
            os.fsync(parent)
        finally:
            _remove(folder.parent, prefix)
    finally:
        os.close(parent)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """A JSON object, for people to read too."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_index(folder: Path, shards: Mapping[str, Sequence[Spec]]) -> None:
    """The index of a folder's shards: which tensor is in which file."""
    weight_map = {spec.name: name for name, specs in shards.items() for spec in specs}
    total = sum(spec.nbytes for specs in shards.values() for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / layout.INDEX, index)


def header(specs: Sequence[Spec]) -> tuple[bytes, int]:
    """How a safetensors file with these tensors begins, and the size of the whole file in bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        offsets = [end, end + spec.nbytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        end += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Padded so that the data, and with it each tensor, can be mapped where it lies.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + end


class ShardWriter:
    """Writes one safetensors file: the header at once, then the tensors' bytes in the order of `specs`."""

    def __init__(self, path: Path, specs: Sequence[Spec]) -> None:
        beginning, self._size = header(specs)
        self._path = path
        self._file = path.open("wb")
        self._file.write(beginning)

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        written = self._file.tell()
        self._file.close()
        if error is None and written != self._size:
            raise AssertionError(f"{self._path}: {written} bytes where {self._size} belong. This is a bug.")


def _remove(parent: Path, prefix: str) -> None:
    for left in parent.iterdir():
        if left.name.startswith(prefix):
            shutil.rmtree(left)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for path in [*(os.path.join(root, name) for name in names), root]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
