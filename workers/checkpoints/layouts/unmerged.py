"""What a checkpoint layout has to say: how a folder is recognized and imitated, and how it is merged."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from triptych.workers.checkpoints.adapters import Adapter, Low
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, CheckpointError
from triptych.workers.checkpoints.shards import ITEM_BYTES, Tensor, read_shards
from triptych.workers.shared.families import Family

Kind = Literal["variant", "official", "published", "upstream", "incomplete", "not a checkpoint"]

Found = tuple[Kind, str]
"""What a folder is, and why it cannot be served ("" if it can)."""

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


class Part(NamedTuple):
    """A weight of a variant: the tensor that it comes from, and what is merged into it."""

    name: str
    tensor: Tensor
    low: Low | None = None


Shards = Mapping[str, Sequence[Part]]
"""File -> its weights."""


class Plan(NamedTuple):
    """What a variant is made of: file -> its weights, and file -> its JSON."""

    files: Shards
    configs: Mapping[str, Config]


class Unmerged(NamedTuple):
    """A base and its adapters: file -> its weights, and adapter -> what it adds to which tensors."""

    shards: Shards
    adapters: Mapping[str, Adapter]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of all files, by their names in a variant."""
        return {part.name: part.tensor for parts in self.shards.values() for part in parts}


class Layout(Protocol):
    """A module of this package. Errors are `CheckpointError`; they name files, keys and shapes."""

    EMBEDDING: str
    """The end of the name of the token embeddings in a folder that is served."""

    def kind(self, family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
        """What a folder without `variant.json`, with tensors of `names`, is; None for another model."""

    def tiny(self, family: Family, config: Config) -> Mapping[str, Shapes]:
        """File -> its tensors, for a random checkpoint."""


class MergedLayout(Layout, Protocol):
    """The layout of a base and adapters, which are merged before they are served."""

    def adapter_folders(self, family: Family) -> Sequence[str]:
        """The folders of the adapters; empty if the base's files hold them too."""

    def read(self, family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
        """Read the headers of the base and of the adapters `wanted`, and check that they fit."""

    def changes(self, family: Family, config: Config, weights: Mapping[str, tuple[int, ...]]) -> Config:
        """What a variant's config has instead of the source's; `weights` are its shapes by name."""


def read_base(folder: Path, rename: Callable[[str], str | None]) -> tuple[Shards, dict[str, Tensor]]:
    """The weights of a base: file -> those of the variant, and name -> all of them.

    `rename` gives a tensor's name in the variant, None for one that the variant does not have. Raises
    `CheckpointError` for weights that cannot be merged.
    """
    shards = read_shards(folder)
    held = {tensor.name: tensor for tensors in shards.values() for tensor in tensors}
    if strange := [tensor.name for tensor in held.values() if tensor.dtype not in ITEM_BYTES]:
        raise CheckpointError(
            f"{folder} holds quantized weights, which cannot be merged: {', '.join(strange)}"
        )
    kept = {
        file: [Part(name, tensor) for tensor in tensors if (name := rename(tensor.name))]
        for file, tensors in shards.items()
    }
    return kept, held


def refuse_lacking(folder: Path, names: Iterable[str], held: Container[str]) -> None:
    """Raise `CheckpointError` if the base lacks one of `names`."""
    lacking = [name for name in names if name not in held]
    if lacking:
        raise CheckpointError(f"the base in {folder} has no {', '.join(lacking)}; fetch it again")


def layers_of(folder: Path) -> int:
    """`num_hidden_layers` of the config. Raises `CheckpointError` without it."""
    layers = text_config(load_json(folder / CONFIG)).get("num_hidden_layers")
    if not isinstance(layers, int):
        raise CheckpointError(f"{folder / CONFIG} has no num_hidden_layers")
    return layers


def text_config(config: Config) -> Config:
    """Settings of the text model: at the top level in older configs, under `text_config` in newer ones."""
    return {**config, **(config.get("text_config") or {})}


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
