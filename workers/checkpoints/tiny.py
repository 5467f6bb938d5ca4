"""Writes random checkpoints in the upstream layout, for demos, tests and benchmarks.

Their small files are in `tiny_files/`. The tokenizer there is a byte-level BPE like Qwen2's, trained on a
little text in many languages and some code.
"""

import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json, whole_folder, write_json
from triptych.workers.checkpoints.shards import Spec, encode, write_index, write_shard
from triptych.workers.checkpoints.space import Advance
from triptych.workers.shared.contract import POOLS

FILES = Path(__file__).with_name("tiny_files")
TINY = "config.json"
"""The real hidden size, heads and mrope: 2048 dimensions, 128-d multi-vectors, about 75 MB."""
NANO = "config.nano.json"
"""The least arithmetic that the architecture allows."""

DTYPE = "BF16"
SHARDS = 3


def write_tiny(out: Path, config_file: str, seed: int, *, progress: Callable[[str, int], Advance]) -> None:
    """Write a checkpoint to `out`; deterministic in `config_file` (`TINY` or `NANO`) and seed.

    `progress` is called with a title and the total bytes. Raises `CheckpointError` if `out` exists.
    """
    config = load_json(FILES / config_file)
    rank = load_json(FILES / layout.ADAPTER_CONFIG)["r"]
    base = [Spec(name, DTYPE, shape) for name, shape in _base(config)]
    adapters = [Spec(name, DTYPE, shape) for name, shape in _adapters(config, rank)]
    per_shard = -(-len(base) // SHARDS)
    shards = {
        f"model-{number + 1:05}-of-{SHARDS:05}.safetensors": base[number * per_shard :][:per_shard]
        for number in range(SHARDS)
    }
    advance = progress("writing random weights", sum(spec.nbytes for spec in base + adapters))
    with whole_folder(out, replace=False) as partial:
        ignored = shutil.ignore_patterns(TINY, NANO)
        shutil.copytree(FILES, partial, ignore=ignored, dirs_exist_ok=True)
        write_json(partial / layout.CONFIG, config)
        Tokenizer.from_file(str(FILES / layout.TOKENIZER)).model.save(str(partial))
        for name, specs in {**shards, layout.ADAPTER_WEIGHTS: adapters}.items():
            write_shard(partial / name, specs, _values(specs, seed, advance))
        write_index(partial, shards)


def _values(specs: Iterable[Spec], seed: int, advance: Advance) -> Iterator[bytes]:
    for spec in specs:
        # Seeded by name, so that a tensor does not depend on other tensors.
        rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        values = rng.standard_normal(spec.shape, np.float32) * np.float32(_deviation(spec))
        if _is_norm(spec.name):
            values += 1
        data = encode(values, spec.dtype)
        yield data
        advance(len(data))


def _deviation(spec: Spec) -> float:
    """Standard deviation of a tensor's values. The mean is 1 for norms, otherwise 0."""
    if _is_norm(spec.name) or spec.name.endswith(".bias"):
        return 0.1
    # Linear layers keep a vector's norm. Embeddings of half of it let the layers influence the result, and
    # adapters that add half of it make the vectors of the tasks clearly different.
    if "embed_tokens" in spec.name:
        return 0.5
    return (0.5 if ".lora_B." in spec.name else 1.0) / math.sqrt(math.prod(spec.shape[1:]))


def _is_norm(name: str) -> bool:
    return "norm" in name or "ln_q" in name


Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""Names of tensors and their shapes."""


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _modules(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Module -> (outputs, inputs), for the modules of a layer that adapters change."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    outputs = (hidden, keys, keys, hidden, inner, inner, hidden)
    inputs = (hidden, hidden, hidden, hidden, hidden, hidden, inner)
    return dict(zip(layout.MODULES, zip(outputs, inputs, strict=True), strict=True))


def _base(config: dict[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
        for module, (outputs, inputs) in _modules(config).items():
            # In Qwen2 only queries, keys and values have a bias.
            bias = module.startswith("self_attn") and not module.endswith("o_proj")
            yield from _linear(f"{name}.{module}", outputs, inputs, bias=bias)
    yield "model.norm.weight", (hidden,)
    yield from _linear(layout.PROJECTOR, layout.PROJECTOR_DIMENSIONS, hidden)
    yield from _vision(config["vision_config"])


def _vision(config: dict[str, Any]) -> Shapes:
    hidden, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    yield (
        "visual.patch_embed.proj.weight",
        (hidden, config["in_channels"], config["temporal_patch_size"], patch, patch),
    )
    for block in range(config["depth"]):
        name = f"visual.blocks.{block}"
        yield f"{name}.norm1.weight", (hidden,)
        yield f"{name}.norm2.weight", (hidden,)
        yield from _linear(f"{name}.attn.qkv", 3 * hidden, hidden)
        yield from _linear(f"{name}.attn.proj", hidden, hidden)
        yield from _linear(f"{name}.mlp.gate_proj", inner, hidden)
        yield from _linear(f"{name}.mlp.up_proj", inner, hidden)
        yield from _linear(f"{name}.mlp.down_proj", hidden, inner)
    merged = hidden * config["spatial_merge_size"] ** 2
    yield "visual.merger.ln_q.weight", (hidden,)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", config["out_hidden_size"], merged)


def _adapters(config: dict[str, Any], rank: int) -> Shapes:
    layer = _modules(config) | {layout.PROJECTOR: (layout.PROJECTOR_DIMENSIONS, config["hidden_size"])}
    for module in layout.adapted_modules(config["num_hidden_layers"]):
        outputs, inputs = layer[module.split(".", 2)[-1]]
        for task in POOLS:
            yield layout.adapter_key(module, "A", task), (rank, inputs)
            yield layout.adapter_key(module, "B", task), (outputs, rank)
