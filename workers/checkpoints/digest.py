"""Digests of weights and of merge sources.

The digest of weights is the SHA-256 of one line per tensor, sorted by name: `<name> <dtype> <shape,
comma-separated> <SHA-256 of its bytes>\\n`. It does not depend on the shards, and covers neither config nor
tokenizer. The digest of a source is the SHA-256 of `<path> <SHA-256 of the file>\\n` over the files that a
merge reads.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.shards import Spec, Tensor, read_shards

BLOCK_BYTES = 1 << 24

Advance = Callable[[int], object]
"""Called with the number of bytes processed since its last call."""

Progress = Callable[[str, int], Advance]
"""Starts a progress bar with a title and its total in bytes."""


class WeightsDigest:
    """Digests tensors in any order."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []

    def watch(self, tensor: Spec | Tensor, blocks: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
        """Pass on all bytes of a tensor, and add them to the digest."""
        data = hashlib.sha256()
        for block in blocks:
            data.update(block)
            yield block
            advance(len(block))
        shape = ",".join(map(str, tensor.shape))
        self._lines.append((tensor.name, f"{tensor.name} {tensor.dtype} {shape} {data.hexdigest()}\n"))

    def hexdigest(self) -> str:
        """The digest of all tensors so far."""
        return hashlib.sha256("".join(line for _, line in sorted(self._lines)).encode()).hexdigest()


def weights_digest(tensors: list[Tensor], progress: Progress) -> str:
    """The digest of weights on disk, read in blocks."""
    advance = progress("reading the weights", sum(tensor.nbytes for tensor in tensors))
    digest = WeightsDigest()
    for tensor in tensors:
        for _ in digest.watch(tensor, tensor.blocks(BLOCK_BYTES), advance):
            pass
    return digest.hexdigest()


def source_digest(folder: Path, progress: Progress) -> str:
    """The digest of the files of an upstream layout that determine the result of a merge."""
    names = [
        layout.CONFIG,
        layout.PREPROCESSOR,
        *layout.TOKENIZER_FILES,
        layout.ADAPTER_CONFIG,
        layout.ADAPTER_WEIGHTS,
        *read_shards(folder),
    ]
    return files_digest(folder, [name for name in names if (folder / name).exists()], progress)


def files_digest(folder: Path, names: list[str], progress: Progress) -> str:
    """The digest of whole files in a folder."""
    advance = progress("reading the files", sum((folder / name).stat().st_size for name in names))
    whole = hashlib.sha256()
    for name in names:
        data = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                data.update(block)
                advance(len(block))
        whole.update(f"{name} {data.hexdigest()}\n".encode())
    return whole.hexdigest()
