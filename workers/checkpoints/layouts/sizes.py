"""The tensors of Qwen and Llama by their shapes, for adapters and for random checkpoints."""

from collections.abc import Iterable
from typing import Any

Config = dict[str, Any]
"""The content of a `config.json`."""

Shapes = Iterable[tuple[str, tuple[int, ...]]]
"""Names of tensors and their shapes."""

DECODER_MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The linear modules of a layer of Qwen and Llama; adapters change all of them."""


def decoder_sizes(config: Config) -> dict[str, tuple[int, int]]:
    """The modules of a layer: name -> (outputs, inputs)."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = head * heads, head * config["num_key_value_heads"]
    outputs = (queries, keys, keys, hidden, inner, inner, hidden)
    inputs = (hidden, hidden, hidden, queries, hidden, hidden, inner)
    return dict(zip(DECODER_MODULES, zip(outputs, inputs, strict=True), strict=True))


def decoder(config: Config, prefix: str = "model.", *, bias: bool = True) -> Shapes:
    """The tensors of Qwen or Llama without its output head. `bias` is for queries, keys and values."""
    hidden = config["hidden_size"]
    yield f"{prefix}embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        name = f"{prefix}layers.{layer}"
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
        # Qwen3 normalizes queries and keys; its config gives the size of a head.
        for norm in ("q_norm", "k_norm") if "head_dim" in config else ():
            yield f"{name}.self_attn.{norm}.weight", (config["head_dim"],)
        for module, shape in decoder_sizes(config).items():
            biased = bias and module.endswith(("q_proj", "k_proj", "v_proj"))
            yield from linear(f"{name}.{module}", *shape, bias=biased)
    yield f"{prefix}norm.weight", (hidden,)


def vision(config: Config, width: int, outputs: int, mlp: Shapes, *, norm_bias: bool) -> Shapes:
    """The tensors of Qwen's vision tower; `mlp` are the layers of its MLPs: name -> (outputs, inputs)."""
    patch, layers = config["patch_size"], [*mlp]
    yield (
        "visual.patch_embed.proj.weight",
        (width, config["in_channels"], config["temporal_patch_size"], patch, patch),
    )
    for block in range(config["depth"]):
        name = f"visual.blocks.{block}"
        yield from linear(f"{name}.norm1", width, bias=norm_bias)
        yield from linear(f"{name}.norm2", width, bias=norm_bias)
        yield from linear(f"{name}.attn.qkv", 3 * width, width)
        yield from linear(f"{name}.attn.proj", width, width)
        for layer, shape in layers:
            yield from linear(f"{name}.mlp.{layer}", *shape)
    merged = width * config["spatial_merge_size"] ** 2
    yield from linear("visual.merger.ln_q", width, bias=norm_bias)
    yield from linear("visual.merger.mlp.0", merged, merged)
    yield from linear("visual.merger.mlp.2", outputs, merged)


def linear(name: str, outputs: int, *inputs: int, bias: bool = True) -> Shapes:
    """The tensors of a linear layer; of a norm without `inputs`."""
    yield f"{name}.weight", (outputs, *inputs)
    if bias:
        yield f"{name}.bias", (outputs,)
