"""Digests of weights and of merge sources.

The digest of weights is the SHA-256 of one line per tensor, sorted by name: `<name> <dtype> <shape,
comma-separated> <SHA-256 of its bytes>\\n`. It does not depend on the shards, and covers neither config nor
tokenizer. The digest of a source is the SHA-256 of `<path> <SHA-256 of the file>\\n` over the files that a
merge reads.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.shards import Tensor, read_shards

BLOCK_BYTES = 1 << 24

Advance = Callable[[int], object]
"""Called with the number of bytes processed since its last call."""


class WeightsDigest:
    """Digests tensors in any order, each in pieces."""

    def __init__(self) -> None:
        self._tensors: list[tuple[str, str, str, hashlib._Hash]] = []

    def begin(self, name: str, dtype: str, shape: Iterable[int]) -> None:
        """Start a tensor. The following pieces belong to it."""
        self._tensors.append((name, dtype, ",".join(map(str, shape)), hashlib.sha256()))

    def update(self, data: bytes) -> None:
        """Add the next piece of the current tensor."""
        self._tensors[-1][3].update(data)

    def hexdigest(self) -> str:
        """The digest of all tensors so far."""
        whole = hashlib.sha256()
        for name, dtype, shape, data in sorted(self._tensors, key=lambda tensor: tensor[0]):
            whole.update(f"{name} {dtype} {shape} {data.hexdigest()}\n".encode())
        return whole.hexdigest()


def weights_digest(tensors: Iterable[Tensor], advance: Advance) -> str:
    """The digest of weights on disk, read in blocks."""
    digest = WeightsDigest()
    for tensor in tensors:
        digest.begin(tensor.name, tensor.dtype, tensor.shape)
        for block in tensor.blocks(BLOCK_BYTES):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def source_files(folder: Path) -> list[Path]:
    """The files of an upstream layout that determine the result of a merge."""
    names = [
        layout.CONFIG,
        layout.PREPROCESSOR,
        *layout.TOKENIZER_FILES,
        layout.ADAPTER_CONFIG,
        layout.ADAPTER_WEIGHTS,
        *read_shards(folder),
    ]
    return [folder / name for name in names if (folder / name).exists()]


def files_digest(folder: Path, paths: Iterable[Path], advance: Advance) -> str:
    """The digest of whole files in a folder, such as `source_files`."""
    whole = hashlib.sha256()
    for path in paths:
        data = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                data.update(block)
                advance(len(block))
        whole.update(f"{path.relative_to(folder)} {data.hexdigest()}\n".encode())
    return whole.hexdigest()
