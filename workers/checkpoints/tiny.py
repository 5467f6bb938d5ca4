"""Writes random checkpoints in the upstream layout, for demos, tests and benchmarks."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.checkpoints import layout
from workers.checkpoints.digest import Advance
from workers.checkpoints.floats import encode
from workers.checkpoints.tokenizer import build_tokenizer, write_tokenizer
from workers.checkpoints.writing import ShardWriter, Spec, whole_folder, write_index, write_json
from workers.shared.contract import POOLS

DTYPE = "BF16"
RANK = 32
# Linear layers here keep a vector's norm. Embeddings of half of it let the layers influence the result, and
# adapters that add half of it make the vectors of the tasks clearly different.
_EMBEDDING_STD = 0.5
_ADAPTER_STD = 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a tiny checkpoint. `shards` is the number of files with base weights."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    mrope: tuple[int, int, int]
    vision_depth: int
    shards: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads


TINY = Size(2048, 512, 2, 16, 2, (16, 24, 24), 2, 3)
"""The real hidden size, heads and mrope: 2048 dimensions, 128-d multi-vectors, about 75 MB."""

NANO = Size(64, 128, 1, 2, 1, (4, 6, 6), 1, 2)
"""The least arithmetic that the architecture allows."""

VISION_HIDDEN = 64
VISION_INTERMEDIATE = 128
VISION_HEADS = 2
PATCH, TEMPORAL, MERGE = 14, 2, 2


def write_tiny(out: Path, size: Size, seed: int, *, progress: Callable[[str, int], Advance]) -> None:
    """Write a checkpoint to `out`; deterministic in size and seed.

    `progress` is called with a title and the total bytes. Raises `CheckpointError` if `out` exists.
    """
    tokenizer = build_tokenizer()
    base = list(_base(size, -(-tokenizer.get_vocab_size() // 64) * 64))
    adapters = list(_adapters(size))
    per_shard = -(-len(base) // size.shards)
    shards = {
        f"model-{number + 1:05}-of-{size.shards:05}.safetensors": base[
            number * per_shard : (number + 1) * per_shard
        ]
        for number in range(size.shards)
    }
    advance = progress("writing random weights", sum(spec.nbytes for spec, _ in base + adapters))
    with whole_folder(out, replace=False) as partial:
        for name, weights in shards.items():
            _write(partial / name, weights, seed, advance)
        write_index(partial, {name: [spec for spec, _ in weights] for name, weights in shards.items()})
        (partial / layout.ADAPTER_WEIGHTS).parent.mkdir()
        _write(partial / layout.ADAPTER_WEIGHTS, adapters, seed, advance)
        write_json(partial / layout.ADAPTER_CONFIG, _adapter_config())
        write_tokenizer(tokenizer, partial)
        write_json(partial / layout.CONFIG, _config(size, base[0][0].shape[0], tokenizer.token_to_id))
        write_json(partial / layout.PREPROCESSOR, _PREPROCESSOR)


Weight = tuple[Spec, float]
"""A tensor and the standard deviation of its values. The mean is 1 for norms, otherwise 0."""


def _write(path: Path, weights: Iterable[Weight], seed: int, advance: Advance) -> None:
    weights = list(weights)
    with ShardWriter(path, [spec for spec, _ in weights]) as writer:
        for spec, std in weights:
            # Seeded by name, so that a tensor does not depend on other tensors.
            rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
            values = rng.standard_normal(spec.shape, np.float32) * np.float32(std)
            if "norm" in spec.name or "ln_q" in spec.name:
                values += 1
            data = encode(values, spec.dtype)
            writer.write(data)
            advance(len(data))


def _linear(name: str, outputs: int, inputs: int, *, bias: bool) -> Iterator[Weight]:
    yield Spec(f"{name}.weight", DTYPE, (outputs, inputs)), inputs**-0.5
    if bias:
        yield Spec(f"{name}.bias", DTYPE, (outputs,)), 0.1


def _norm(name: str, width: int) -> Weight:
    return Spec(f"{name}.weight", DTYPE, (width,)), 0.1


def _shapes(size: Size) -> dict[str, tuple[int, int]]:
    """Module -> (outputs, inputs), for the modules that adapters change."""
    hidden, keys = size.hidden, size.kv_heads * size.head
    outputs = (hidden, keys, keys, hidden, size.intermediate, size.intermediate, hidden)
    inputs = (hidden, hidden, hidden, hidden, hidden, hidden, size.intermediate)
    return dict(zip(layout.MODULES, zip(outputs, inputs, strict=True), strict=True))


def _base(size: Size, vocabulary: int) -> Iterator[Weight]:
    yield Spec("model.embed_tokens.weight", DTYPE, (vocabulary, size.hidden)), _EMBEDDING_STD
    for layer in range(size.layers):
        name = f"model.layers.{layer}"
        yield _norm(f"{name}.input_layernorm", size.hidden)
        yield _norm(f"{name}.post_attention_layernorm", size.hidden)
        for module, (outputs, inputs) in _shapes(size).items():
            # In Qwen2 only queries, keys and values have a bias.
            bias = module.startswith("self_attn") and not module.endswith("o_proj")
            yield from _linear(f"{name}.{module}", outputs, inputs, bias=bias)
    yield _norm("model.norm", size.hidden)
    yield from _linear(layout.PROJECTOR, layout.PROJECTOR_DIMENSIONS, size.hidden, bias=True)
    patch = (VISION_HIDDEN, 3, TEMPORAL, PATCH, PATCH)
    yield Spec("visual.patch_embed.proj.weight", DTYPE, patch), (3 * TEMPORAL * PATCH**2) ** -0.5
    for block in range(size.vision_depth):
        name = f"visual.blocks.{block}"
        yield _norm(f"{name}.norm1", VISION_HIDDEN)
        yield _norm(f"{name}.norm2", VISION_HIDDEN)
        yield from _linear(f"{name}.attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN, bias=True)
        yield from _linear(f"{name}.attn.proj", VISION_HIDDEN, VISION_HIDDEN, bias=True)
        yield from _linear(f"{name}.mlp.gate_proj", VISION_INTERMEDIATE, VISION_HIDDEN, bias=True)
        yield from _linear(f"{name}.mlp.up_proj", VISION_INTERMEDIATE, VISION_HIDDEN, bias=True)
        yield from _linear(f"{name}.mlp.down_proj", VISION_HIDDEN, VISION_INTERMEDIATE, bias=True)
    merged = VISION_HIDDEN * MERGE**2
    yield _norm("visual.merger.ln_q", VISION_HIDDEN)
    yield from _linear("visual.merger.mlp.0", merged, merged, bias=True)
    yield from _linear("visual.merger.mlp.2", size.hidden, merged, bias=True)


def _adapters(size: Size) -> Iterator[Weight]:
    shapes = {
        f"layers.{layer}.{module}": shape
        for layer in range(size.layers)
        for module, shape in _shapes(size).items()
    }
    shapes[layout.PROJECTOR] = (layout.PROJECTOR_DIMENSIONS, size.hidden)
    for module, (outputs, inputs) in shapes.items():
        for task in POOLS:
            yield Spec(layout.adapter_key(module, "A", task), DTYPE, (RANK, inputs)), inputs**-0.5
            yield (
                Spec(layout.adapter_key(module, "B", task), DTYPE, (outputs, RANK)),
                _ADAPTER_STD * RANK**-0.5,
            )


def _config(size: Size, vocabulary: int, token_id: Callable[[str], int | None]) -> dict[str, Any]:
    return {
        "architectures": ["JinaEmbeddingsV4Model"],
        "model_type": layout.MODEL_TYPE,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "max_position_embeddings": 128000,
        "max_window_layers": size.layers,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"mrope_section": list(size.mrope), "rope_type": "default", "type": "default"},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "use_cache": True,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": token_id("<|endoftext|>"),
        "eos_token_id": token_id("<|im_end|>"),
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "vision_token_id": token_id("<|vision_pad|>"),
        "multi_vector_projector_dim": layout.PROJECTOR_DIMENSIONS,
        "single_vector_pool_strategy": "mean",
        "task_names": list(POOLS),
        "vision_config": {
            "model_type": layout.MODEL_TYPE,
            "depth": size.vision_depth,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": VISION_INTERMEDIATE,
            "num_heads": VISION_HEADS,
            "out_hidden_size": size.hidden,
            "fullatt_block_indexes": [size.vision_depth - 1],
            "hidden_act": "silu",
            "in_chans": 3,
            "in_channels": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": TEMPORAL,
            "tokens_per_second": 2,
            "window_size": 112,
        },
    }


def _adapter_config() -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": layout.UPSTREAM_ID,
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "target_modules": r".*model.*(q|k|v|o|gate|up|down)_proj$|.*multi_vector_projector$",
    }


_PREPROCESSOR = {
    "min_pixels": layout.MIN_PIXELS,
    "max_pixels": layout.MAX_PIXELS,
    "patch_size": PATCH,
    "temporal_patch_size": TEMPORAL,
    "merge_size": MERGE,
    # CLIP's.
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "JinaEmbeddingsV4Processor",
}
