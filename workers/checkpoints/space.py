"""The vector space: the identity of a worker's vectors. Imports neither torch nor vllm.

Vectors of one space may be compared with each other; vectors of two spaces may not, although both have the
same length. So a space is a digest over all that decides a vector: the weights, the arithmetic (dtype and
quantization), the tokenizer, the configuration of model and image processor, and the pooling.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.digest import Advance, weights_digest
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.shards import has_weights, load_json, read_shards

# Raised when the worker's own part changes a vector: prompts, pooling, how images become pixels.
POOLING = "mean-1"

# Config keys that do not affect vectors.
_COSMETIC = frozenset({"_commit_hash", "_name_or_path", "dtype", "torch_dtype", "transformers_version"})
# Hexadecimal digits: enough that two spaces never share one by chance.
_DIGITS = 16


def vector_space(
    folder: Path,
    weights: str | None,
    *,
    dtype: str,
    quantization: str | None,
    progress: Callable[[str, int], Advance],
) -> str:
    """The space of what is served from `folder`: 16 hexadecimal digits.

    `weights` is their digest where it is known, as `variant.json` has it; otherwise they are read, which
    `progress` shows (a title and the bytes it will count). Raises `CheckpointError` for unreadable files.
    """
    parts = {
        "weights": weights or _read_weights(folder, progress),
        "dtype": dtype,
        "quantization": quantization,
        "pooling": POOLING,
        layout.TOKENIZER: hashlib.sha256((folder / layout.TOKENIZER).read_bytes()).hexdigest(),
        layout.CONFIG: _computing(load_json(folder / layout.CONFIG)),
    }
    if (folder / layout.PREPROCESSOR).exists():
        parts[layout.PREPROCESSOR] = _computing(load_json(folder / layout.PREPROCESSOR))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _read_weights(folder: Path, progress: Callable[[str, int], Advance]) -> str:
    if not has_weights(folder):
        if not (files := sorted(folder.glob("*.bin"))):
            raise CheckpointError(f"{folder} has no weights; fetch it again")
        return _read_files(files, progress)
    tensors = [tensor for shard in read_shards(folder).values() for tensor in shard]
    return weights_digest(tensors, progress("reading the weights", sum(tensor.nbytes for tensor in tensors)))


def _read_files(files: Sequence[Path], progress: Callable[[str, int], Advance]) -> str:
    """The digest of weights in an older format than safetensors, file by file."""
    whole = hashlib.sha256()
    advance = progress("reading the weights", sum(file.stat().st_size for file in files))
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {digest}\n".encode())
        advance(path.stat().st_size)
    return whole.hexdigest()


def _computing(config: object) -> object:
    """`config` without the keys in `_COSMETIC`, at any depth."""
    if isinstance(config, dict):
        return {key: _computing(value) for key, value in config.items() if key not in _COSMETIC}
    return config
