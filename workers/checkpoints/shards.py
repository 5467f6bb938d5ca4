"""Reads and writes safetensors files as streams, with numpy instead of torch.

A file is the header's length (8 bytes, little-endian), the JSON header with dtype, shape and offsets of each
tensor, and the data. https://github.com/huggingface/safetensors#format
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json, write_json
from triptych.workers.checkpoints.layout import CheckpointError

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
LARGEST = {"BF16": 3.3895e38, "F16": 65504.0, "F32": 3.4028e38}
"""The largest finite value of each dtype, to five digits."""

Floats = npt.NDArray[np.float32]


class Spec(NamedTuple):
    """A tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Tensor(NamedTuple):
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
                if not (block := file.read(min(left, block_bytes))):
                    raise CheckpointError(f"{self.path} was truncated while it was read; merge again")
                left -= len(block)
                yield block

    def read(self) -> bytes:
        return b"".join(self.blocks(max(self.nbytes, 1)))


def read_header(path: Path) -> list[Tensor]:
    """The tensors of one file, in the order of their data. Raises `CheckpointError` if it is damaged."""
    try:
        # The library checks sizes and offsets, but does not say where a tensor begins.
        with safe_open(path, "np"), path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; fetch it again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; fetch it again") from error
    header.pop("__metadata__", None)
    tensors = []
    for name, at in header.items():
        first, last = at["data_offsets"]
        tensors.append(Tensor(name, at["dtype"], tuple(at["shape"]), path, start + first, last - first))
    return sorted(tensors, key=lambda tensor: tensor.begin)


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
    names = sorted(set(index.values()))
    if missing := ", ".join(name for name in names if not (folder / name).exists()):
        raise CheckpointError(f"{folder} has no {missing}; fetch or merge it again")
    shards = {name: read_header(folder / name) for name in names}
    held = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
    wrong = sorted(name for name in held.keys() | index.keys() if held.get(name) != index.get(name))
    if wrong:
        raise CheckpointError(f"in {folder} the index and the shards disagree about {', '.join(wrong)}")
    return shards


def read_tensors(folder: Path) -> list[Tensor]:
    """The tensors of all shards (`read_shards`)."""
    return [tensor for tensors in read_shards(folder).values() for tensor in tensors]


def write_shard(path: Path, specs: Sequence[Spec], blocks: Iterable[bytes]) -> None:
    """Write one file: the header, then the tensors' bytes in the order of `specs`."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets = pairwise(accumulate((spec.nbytes for spec in specs), initial=0))
    for spec, at in zip(specs, offsets, strict=True):
        entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": at}
    header = json.dumps(entries, separators=(",", ":")).encode()
    # Padded, so that the data is aligned and can be mapped.
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.writelines(blocks)


def write_index(folder: Path, shards: Mapping[str, Sequence[Spec]]) -> None:
    weight_map = {spec.name: name for name, specs in shards.items() for spec in specs}
    total = sum(spec.nbytes for specs in shards.values() for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / layout.INDEX, index)


def decode(data: bytes, dtype: str) -> Floats:
    """Little-endian bytes to a flat float32 array; exact."""
    if dtype == "BF16":
        # The upper half of a float32, which numpy does not know.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f2" if dtype == "F16" else "<f4").astype(np.float32)


def encode(values: Floats, dtype: str) -> bytes:
    """A finite float32 array to little-endian bytes of `dtype`, rounded to nearest."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()
