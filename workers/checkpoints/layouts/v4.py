"""The layout of jinaai/jina-embeddings-v4: Qwen2.5-VL, and one adapter file for all tasks.

The base has the old Qwen2.5-VL names (`model.layers.N...`, `visual...`, `multi_vector_projector...`); the
keys of the adapters use the new ones (`model.language_model.layers.N...`). A variant keeps the base's names;
vLLM reads both styles.
"""

import math
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from triptych.workers.checkpoints.adapters import WEIGHTS, halves, read_adapters
from triptych.workers.checkpoints.layout import PROJECTOR
from triptych.workers.checkpoints.layouts.sizes import (
    DECODER_MODULES,
    Config,
    Shapes,
    decoder,
    decoder_sizes,
    linear,
    vision,
)
from triptych.workers.checkpoints.layouts.unmerged import Found, Unmerged, read_base, refuse_lacking
from triptych.workers.shared.families import Family

EMBEDDING = "embed_tokens.weight"
MODEL_TYPE = "qwen2_5_vl"
ADAPTERS = "adapters"

PROJECTOR_DIMENSIONS = 128
# Of a tiny checkpoint.
RANK, LEAST_SHARDS = 32, 3
# Of a random checkpoint.
SHARD_VALUES = 1 << 28
_LAYERS = "model.language_model.layers."


def adapted_modules(layers: int) -> list[str]:
    """All modules that an adapter changes in a backbone of `layers` layers, with the adapter file's names."""
    modules = [f"{_LAYERS}{layer}.{module}" for layer in range(layers) for module in DECODER_MODULES]
    return [*modules, PROJECTOR]


def kind(family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
    if (folder / ADAPTERS / WEIGHTS).exists():
        return "upstream", ""
    if config.get("model_type") != MODEL_TYPE:
        return None
    # The bare base would give wrong vectors.
    if f"{PROJECTOR}.weight" in names:
        return "incomplete", f"is the base without {ADAPTERS}/{WEIGHTS}; fetch it again and merge it"
    return "official", ""


def adapter_folders(family: Family) -> Sequence[str]:
    return (ADAPTERS,)


def read(family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
    kept, held, layers = read_base(folder, str)
    refuse_lacking(folder, [f"{PROJECTOR}.bias"], held)
    weights = {
        re.sub(r"^model\.layers\.", _LAYERS, name).removesuffix(".weight"): tensor
        for name, tensor in held.items()
    }
    modules = adapted_modules(layers)
    refuse_lacking(folder, modules, weights)
    adapted = {module: weights[module] for module in modules}
    suffixes = {adapter: f".{adapter}" for adapter in family.adapters}
    return Unmerged(kept, read_adapters(folder / ADAPTERS, adapted, suffixes, wanted))


def changes(family: Family, config: Config, weights: Mapping[str, tuple[int, ...]]) -> Config:
    return {
        "model_type": MODEL_TYPE,
        "multi_vector_projector_dim": weights[f"{PROJECTOR}.weight"][0],
        # Without `lm_head`, the token embeddings are also the output head.
        "tie_word_embeddings": "lm_head.weight" not in weights,
    }


def tiny(family: Family, config: Config) -> Mapping[str, Shapes]:
    base = list(_base(config))
    count = max(LEAST_SHARDS, sum(math.prod(shape) for _, shape in base) // SHARD_VALUES)
    per_shard = -(-len(base) // count)
    shards: dict[str, Shapes] = {
        f"model-{number + 1:05}-of-{count:05}.safetensors": base[number * per_shard :][:per_shard]
        for number in range(count)
    }
    return shards | {f"{ADAPTERS}/{WEIGHTS}": _adapters(family, config)}


def _base(config: Config) -> Shapes:
    yield from decoder(config)
    yield from linear(PROJECTOR, PROJECTOR_DIMENSIONS, config["hidden_size"])
    tower = config["vision_config"]
    width, inner = tower["hidden_size"], tower["intermediate_size"]
    mlp = [("gate_proj", (inner, width)), ("up_proj", (inner, width)), ("down_proj", (width, inner))]
    yield from vision(tower, width, tower["out_hidden_size"], mlp, norm_bias=False)


def _adapters(family: Family, config: Config) -> Shapes:
    layer = decoder_sizes(config) | {PROJECTOR: (PROJECTOR_DIMENSIONS, config["hidden_size"])}
    for module in adapted_modules(config["num_hidden_layers"]):
        shape = layer[module.removeprefix(_LAYERS).split(".", 1)[-1]]
        for adapter in family.adapters:
            yield from halves(module, shape, RANK, f".{adapter}").items()
