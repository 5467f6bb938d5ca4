"""Reads safetensors files without torch: headers, and raw bytes in blocks.

A file is the header's length (8 bytes, little-endian), the JSON header with dtype, shape and offsets of each
tensor, and the data. https://github.com/huggingface/safetensors#format
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.checkpoints import layout
from workers.checkpoints.layout import CheckpointError

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor on disk: `nbytes` bytes from `begin` on in the file `path`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    nbytes: int

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """The tensor's bytes, at most `block_bytes` at a time."""
        # Not mapped: the pages of a mapping stay in the process's memory.
        with self.path.open("rb") as file:
            file.seek(self.begin)
            left = self.nbytes
            while left:
                block = file.read(min(left, block_bytes))
                if not block:
                    raise CheckpointError(f"{self.path} was truncated while it was read; merge again")
                left -= len(block)
                yield block

    def read(self) -> bytes:
        """All bytes of the tensor."""
        return b"".join(self.blocks(max(self.nbytes, 1)))


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


def read_header(path: Path) -> list[Tensor]:
    """The tensors of one file, in the order of their data. Raises `CheckpointError` if it is damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(f"{path} is cut short: it ends inside its header")
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        start = 8 + header_bytes
        tensors = [
            Tensor(name, at["dtype"], tuple(at["shape"]), path, start + first, last - first)
            for name, at in header.items()
            for first, last in [at["data_offsets"]]
        ]
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; fetch it again") from None
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error!r}") from error
    tensors.sort(key=lambda tensor: tensor.begin)
    end = start
    for tensor in tensors:
        item = ITEM_BYTES.get(tensor.dtype)
        if tensor.begin != end or (item and math.prod(tensor.shape) * item != tensor.nbytes):
            raise CheckpointError(f"{path} is damaged: {tensor.name} has wrong offsets")
        end += tensor.nbytes
    if end != size:
        raise CheckpointError(f"{path} is cut short or damaged: {size} bytes instead of {end}")
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether the folder has weights for `read_shards`."""
    return (folder / layout.INDEX).exists() or (folder / layout.SINGLE).exists()


def read_shards(folder: Path) -> dict[str, list[Tensor]]:
    """The weights of a folder: file name -> its tensors, sorted by file name.

    Raises `CheckpointError` if a shard is missing or damaged, or if the index and the shards disagree.
    """
    if not (folder / layout.INDEX).exists():
        return {layout.SINGLE: read_header(folder / layout.SINGLE)}
    index = load_json(folder / layout.INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{folder / layout.INDEX} has no weight_map")
    missing = [name for name in sorted(set(index.values())) if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder} has no {', '.join(missing)}; fetch or merge it again")
    shards = {name: read_header(folder / name) for name in sorted(set(index.values()))}
    held = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
    wrong = sorted(name for name in held.keys() | index.keys() if held.get(name) != index.get(name))
    if wrong:
        raise CheckpointError(f"in {folder} the index and the shards disagree about {', '.join(wrong)}")
    return shards
