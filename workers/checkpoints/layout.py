"""Names of files, tensors and adapter keys of checkpoints.

The upstream layout (jinaai/jina-embeddings-v4) has base shards with the old Qwen2.5-VL names
(`model.layers.N...`, `visual...`, `multi_vector_projector...`), and one adapter file for all tasks, whose
keys use the new names (`model.language_model.layers.N...`). A variant keeps the base's names; vLLM reads both
styles.
"""

import re
from typing import Literal

from triptych.workers.shared.contract import PoolName

ARCHITECTURE = "TriptychEmbeddings"
"""The architecture in a variant's config. The vLLM plugin registers its model under this name."""

MODEL_TYPE = "qwen2_5_vl"
UPSTREAM_ID = "jinaai/jina-embeddings-v4"
UPSTREAM_REVISION = "853c867b65b749f3c3c72a06868140d842e04f06"

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "added_tokens.json",
    "special_tokens_map.json",
    "merges.txt",
    "vocab.json",
)
ADAPTER_CONFIG = "adapters/adapter_config.json"
ADAPTER_WEIGHTS = "adapters/adapter_model.safetensors"
VARIANT = "variant.json"

MIN_PIXELS = 3136
MAX_PIXELS = 602_112
"""Bounds of the model's own image processor: at most 768 image tokens."""

PROJECTOR = "multi_vector_projector"
PROJECTOR_DIMENSIONS = 128
MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The modules of a layer that every adapter changes."""

Half = Literal["A", "B"]
HALVES: tuple[Half, ...] = ("A", "B")

_PARTIAL = re.compile(r"^\..+\.partial-[^/]+$")


class CheckpointError(ValueError):
    """A folder cannot be used as asked. The message says why and what to do."""


def partial_prefix(name: str) -> str:
    """Prefix of the temporary folder in which `name` is written."""
    return f".{name}.partial-"


def is_partial(name: str) -> bool:
    """Whether `name` is the temporary folder of a running or killed merge."""
    return _PARTIAL.match(name) is not None


def module_of(tensor: str) -> str | None:
    """The module of a base weight, in either style of names, or None if no adapter changes it.

    `model.layers.0.mlp.up_proj.weight` and `model.language_model.layers.0.mlp.up_proj.weight` both give
    `layers.0.mlp.up_proj`.
    """
    name, _, kind = tensor.rpartition(".")
    if kind != "weight":
        return None
    if name == PROJECTOR:
        return name
    for prefix in ("model.language_model.", "model."):
        if name.startswith(prefix + "layers."):
            module = name.removeprefix(prefix)
            return module if module.split(".", 2)[-1] in MODULES else None
    return None


def adapted_modules(layers: int) -> list[str]:
    """All modules that an adapter changes in a backbone of `layers` layers."""
    return [f"layers.{layer}.{module}" for layer in range(layers) for module in MODULES] + [PROJECTOR]


def adapter_key(module: str, half: Half, task: PoolName) -> str:
    """The key of one half of a module's adapter in the adapter file."""
    middle = "" if module == PROJECTOR else "model.language_model."
    return f"base_model.model.{middle}{module}.lora_{half}.{task}.weight"
