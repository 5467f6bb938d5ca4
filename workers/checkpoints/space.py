"""Vector space: the identity of a worker's vectors. Does not import torch or vllm.

Only vectors of one space can be compared with each other. A space is a digest over everything that determines
a vector: weights, dtype, quantization, tokenizer, the configs of model and image processor, and pooling.
"""

import hashlib
import json
import logging
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.digest import Advance, files_digest, weights_digest
from workers.checkpoints.folders import load_json
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import has_weights, read_tensors

# Increase it when our own code changes vectors: prompts, pooling, image decoding.
POOLING = "mean-1"

# Config keys that do not affect vectors.
_COSMETIC = frozenset({"_commit_hash", "_name_or_path", "dtype", "torch_dtype", "transformers_version"})
# Hexadecimal digits; two spaces do not collide by chance.
_DIGITS = 16

logger = logging.getLogger(__name__)


def _log_reading(title: str, nbytes: int) -> Advance:
    logger.info("%s (%.1f GB) for the digest of the vector space", title, nbytes / 1e9)
    return lambda done: None


def vector_space(folder: Path, weights: str | None, *, dtype: str, quantization: str | None) -> str:
    """The vector space of a served folder: 16 hexadecimal digits.

    `weights` is the digest of the weights from `variant.json`; without it the weights are read. Raises
    `CheckpointError` for unreadable files.
    """
    parts = {
        "weights": weights or _read_weights(folder),
        "dtype": dtype,
        "quantization": quantization,
        "pooling": POOLING,
        layout.TOKENIZER: hashlib.sha256((folder / layout.TOKENIZER).read_bytes()).hexdigest(),
        layout.CONFIG: _computing(load_json(folder / layout.CONFIG)),
    }
    if (folder / layout.PREPROCESSOR).exists():
        parts[layout.PREPROCESSOR] = _computing(load_json(folder / layout.PREPROCESSOR))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _read_weights(folder: Path) -> str:
    if has_weights(folder):
        return weights_digest(read_tensors(folder), _log_reading)
    # Weights in another format than safetensors.
    if not (files := sorted(file.name for file in folder.glob("*.bin"))):
        raise CheckpointError(f"{folder} has no weights; fetch it again")
    return files_digest(folder, files, _log_reading)


def _computing(config: object) -> object:
    """`config` without the keys in `_COSMETIC`, at any depth."""
    if isinstance(config, dict):
        return {key: _computing(value) for key, value in config.items() if key not in _COSMETIC}
    return config
