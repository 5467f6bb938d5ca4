"""Identities: digests of weights and of merge sources, and the vector space. Does not import torch or vllm.

The digest of weights is the SHA-256 of one line per tensor, sorted by name: `<name> <dtype> <shape,
comma-separated> <SHA-256 of its bytes>\\n`. It does not depend on the shards, and covers neither config nor
tokenizer. The digest of a source is the SHA-256 of `<path> <SHA-256 of the file>\\n` over the files that a
merge reads.

Only vectors of one space can be compared with each other. A space is a digest over everything that determines
a vector: weights, dtype, quantization, tokenizer, the configs of model and image processor, and pooling.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from triptych.workers.checkpoints import layout, shared_variant
from triptych.workers.checkpoints.adapters import CONFIG, WEIGHTS
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.layouts import MERGED_LAYOUTS
from triptych.workers.checkpoints.shards import Spec, Tensor, has_weights, read_shards, read_tensors
from triptych.workers.shared.families import Family

# Increase it when our own code changes vectors: prompts, pooling, image decoding.
POOLING_VERSION = 1

# Config keys that do not affect vectors.
_COSMETIC = frozenset({"_commit_hash", "_name_or_path", "dtype", "torch_dtype", "transformers_version"})
# Hexadecimal digits; two spaces do not collide by chance.
_DIGITS = 16
BLOCK_BYTES = 1 << 24

logger = logging.getLogger(__name__)


def progress_bar(title: str, nbytes: int, *, hidden: bool = False) -> "tqdm[NoReturn]":
    return tqdm(desc=title, total=nbytes, unit="B", unit_scale=True, disable=hidden)


class WeightsDigest:
    """Digests tensors in any order."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []

    def watch(self, tensor: Spec | Tensor, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on all bytes of a tensor, and add them to the digest."""
        data = hashlib.sha256()
        for block in blocks:
            data.update(block)
            yield block
        shape = ",".join(map(str, tensor.shape))
        self._lines.append((tensor.name, f"{tensor.name} {tensor.dtype} {shape} {data.hexdigest()}\n"))

    def hexdigest(self) -> str:
        return hashlib.sha256("".join(line for _, line in sorted(self._lines)).encode()).hexdigest()


def weights_digest(tensors: list[Tensor], *, hidden: bool = False) -> str:
    """The digest of weights on disk, read in blocks. Shows a bar unless `hidden`."""
    digest = WeightsDigest()
    with progress_bar("reading the weights", sum(tensor.nbytes for tensor in tensors), hidden=hidden) as bar:
        for tensor in tensors:
            for block in digest.watch(tensor, tensor.blocks(BLOCK_BYTES)):
                bar.update(len(block))
    return digest.hexdigest()


def source_digest(family: Family, folder: Path) -> str:
    """The digest of the files of a source that determine the result of a merge."""
    adapters = MERGED_LAYOUTS[family.layout].adapter_folders(family)
    names = [layout.CONFIG, layout.PREPROCESSOR, *layout.TOKENIZER_FILES]
    names += [f"{adapter}/{name}" for adapter in adapters for name in (CONFIG, WEIGHTS)]
    names += read_shards(folder)
    return files_digest(folder, [name for name in names if (folder / name).exists()])


def files_digest(folder: Path, names: list[str], *, hidden: bool = False) -> str:
    """The digest of whole files in a folder. Shows a bar unless `hidden`."""
    whole = hashlib.sha256()
    size = sum((folder / name).stat().st_size for name in names)
    with progress_bar("reading the files", size, hidden=hidden) as bar:
        for name in names:
            data = hashlib.sha256()
            with (folder / name).open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    data.update(block)
                    bar.update(len(block))
            whole.update(f"{name} {data.hexdigest()}\n".encode())
    return whole.hexdigest()


def vector_space(
    folder: Path,
    weights: str | None,
    *,
    dtype: str,
    quantization: str | None,
    pooling: str = "mean",
    adapters: Sequence[str] = (),
) -> str:
    """The vector space of a served folder: 16 hexadecimal digits.

    `weights` is the digest of the weights from `variant.json`; without it the weights are read. `adapters`
    are those of a shared variant. Raises `CheckpointError` for unreadable files.
    """
    parts = {
        "weights": weights or _read_weights(folder),
        "dtype": dtype,
        "quantization": quantization,
        "pooling": f"{pooling}-{POOLING_VERSION}",
        layout.TOKENIZER: hashlib.sha256((folder / layout.TOKENIZER).read_bytes()).hexdigest(),
    }
    configs = [f"{shared_variant.FOLDER.format(adapter)}/{CONFIG}" for adapter in adapters]
    if (folder / layout.PREPROCESSOR).exists():
        configs.append(layout.PREPROCESSOR)
    parts |= {name: _computing(load_json(folder / name)) for name in (layout.CONFIG, *configs)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _read_weights(folder: Path) -> str:
    logger.info("reading the weights in %s for the digest of the vector space", folder)
    if has_weights(folder):
        return weights_digest(read_tensors(folder), hidden=True)
    # Weights in another format than safetensors.
    if not (files := sorted(file.name for file in folder.glob("*.bin"))):
        raise CheckpointError(f"{folder} has no weights; fetch it again")
    return files_digest(folder, files, hidden=True)


def _computing(config: Any) -> Any:
    """`config` without the keys in `_COSMETIC`, at any depth."""
    if not isinstance(config, dict):
        return config
    return {key: _computing(value) for key, value in config.items() if key not in _COSMETIC}
