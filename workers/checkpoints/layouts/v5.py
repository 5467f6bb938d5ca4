"""The layout of jinaai/jina-embeddings-v5-text-small and -nano: one PEFT adapter per folder.

The base has the names of a bare transformers model (`layers.N...`, `embed_tokens`, `norm`), without a head.
An adapter is `adapters/<adapter>/`, with keys `base_model.model.layers.N...`. Both models have the same
`model_type`; the encoder, EuroBERT, has `is_decoder: false`. A variant has the names of `Qwen3ForCausalLM`
and `LlamaForCausalLM` (`model.layers.N...`). EuroBERT is a Llama whose attention looks both ways.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints.adapters import Adapter, adapter_key, read_adapters, read_rule
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, SINGLE
from triptych.workers.checkpoints.layouts.unmerged import (
    DECODER_MODULES,
    Kind,
    Shapes,
    Unmerged,
    Weight,
    decoder_sizes,
    layers_of,
    refuse_lacking,
    refuse_quantized,
)
from triptych.workers.checkpoints.shards import read_shards
from triptych.workers.shared.families import Family

EMBEDDING = "embed_tokens.weight"
MODEL_TYPE = "jina_embeddings_v5"
ADAPTER_CONFIG = "adapters/{}/adapter_config.json"
ADAPTER_WEIGHTS = "adapters/{}/adapter_model.safetensors"
# Of a tiny checkpoint.
RANK = 32
_PREFIX = "model."


def kind(
    family: Family, folder: Path, config: dict[str, Any], names: Container[str]
) -> tuple[Kind, str] | None:
    if config.get("model_type") != MODEL_TYPE or config.get("is_decoder", True) != family.causal:
        return None
    return "upstream", ""


def files(family: Family) -> Sequence[str]:
    names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    return [name.format(adapter) for adapter in family.adapters for name in names]


def read(family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
    # Without the output head, which embeddings do not need.
    shards = {
        file: [tensor for tensor in tensors if not tensor.name.startswith("lm_head.")]
        for file, tensors in read_shards(folder).items()
    }
    base = {tensor.name.removeprefix(_PREFIX): tensor for tensors in shards.values() for tensor in tensors}
    refuse_quantized(folder, base.values())
    modules = [
        f"layers.{layer}.{module}"
        for layer in range(layers_of(folder, load_json(folder / CONFIG)))
        for module in DECODER_MODULES
    ]
    refuse_lacking(folder, [EMBEDDING, "norm.weight", *(f"{module}.weight" for module in modules)], base)
    weights = {module: base[f"{module}.weight"] for module in modules}
    adapters: dict[str, Adapter] = {}
    for adapter in wanted:
        rule = read_rule(folder / ADAPTER_CONFIG.format(adapter))
        file = folder / ADAPTER_WEIGHTS.format(adapter)
        adapters |= read_adapters(file, rule, weights, {adapter: ""}, [adapter])
    named = {
        file: [Weight(_PREFIX + tensor.name.removeprefix(_PREFIX), tensor) for tensor in tensors]
        for file, tensors in shards.items()
    }
    return Unmerged(named, adapters)


def changes(family: Family, config: dict[str, Any], weights: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "model_type": "qwen3" if family.causal else "llama",
        "is_causal": family.causal,
        # vLLM's classes have an output head. Tied, it takes no memory.
        "tie_word_embeddings": True,
        # One more than the longest input, because vLLM may reserve one for an answer. Positions only size
        # the table of rotary embeddings.
        "max_position_embeddings": config.get("max_position_embeddings", family.positions) + 1,
    }


def tiny(family: Family, config: dict[str, Any]) -> Mapping[str, Shapes]:
    adapters: dict[str, Shapes] = {
        ADAPTER_WEIGHTS.format(adapter): _adapter(config) for adapter in family.adapters
    }
    return {SINGLE: _base(config), **adapters}


def _base(config: dict[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    yield EMBEDDING, (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        name = f"layers.{layer}"
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
        # Qwen3 normalizes queries and keys; its config gives the size of a head.
        for norm in ("q_norm", "k_norm") if "head_dim" in config else ():
            yield f"{name}.self_attn.{norm}.weight", (config["head_dim"],)
        for module, shape in decoder_sizes(config).items():
            yield f"{name}.{module}.weight", shape
    yield "norm.weight", (hidden,)


def _adapter(config: dict[str, Any]) -> Shapes:
    for layer in range(config["num_hidden_layers"]):
        for module, (outputs, inputs) in decoder_sizes(config).items():
            yield adapter_key(f"layers.{layer}.{module}", "A"), (RANK, inputs)
            yield adapter_key(f"layers.{layer}.{module}", "B"), (outputs, RANK)
