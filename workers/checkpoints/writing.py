"""Writes folders atomically, and safetensors files as a stream."""

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
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import ITEM_BYTES


class Spec(NamedTuple):
    """A tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@contextmanager
def whole_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A temporary folder that is renamed to `folder` when the block succeeds.

    Locks the parent folder; other processes wait. Removes what killed processes left of `folder`. Syncs
    everything to disk before renaming. Raises `CheckpointError` if `folder` exists and `replace` is false.
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
    """Write a JSON object, indented."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_index(folder: Path, shards: Mapping[str, Sequence[Spec]]) -> None:
    """Write the index: tensor name -> shard."""
    weight_map = {spec.name: name for name, specs in shards.items() for spec in specs}
    total = sum(spec.nbytes for specs in shards.values() for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / layout.INDEX, index)


def header(specs: Sequence[Spec]) -> tuple[bytes, int]:
    """The beginning of a safetensors file with these tensors, and the size of the whole file in bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        offsets = [end, end + spec.nbytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        end += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Padded, so that the data is aligned and can be mapped.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + end


class ShardWriter:
    """Writes one safetensors file: first the header, then the tensors' bytes in the order of `specs`."""

    def __init__(self, path: Path, specs: Sequence[Spec]) -> None:
        beginning, self._size = header(specs)
        self._path = path
        self._file = path.open("wb")
        self._file.write(beginning)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        written = self._file.tell()
        self._file.close()
        if error is None and written != self._size:
            raise AssertionError(f"{self._path}: {written} bytes instead of {self._size}. This is a bug.")


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
