"""The layout of jinaai/jina-embeddings-v3: XLM-RoBERTa with rotary positions, adapters inside the base.

An adapted weight `X.weight` is three tensors: `X.parametrizations.weight.original` [out, in], and the halves
of all adapters, stacked: `X.parametrizations.weight.0.lora_A` [adapters, r, in] and `.lora_B` [adapters, out,
r]. For an embedding, the names of the halves are exchanged: `lora_A` [adapters, out, r] and `lora_B`
[adapters, r, in]. The config names the adapters in the order of the stack (`lora_adaptations`). The module
`roberta.pooler` is not used for embeddings. Names and shapes: `modeling_lora.py` of
jinaai/xlm-roberta-flash-implementation.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from triptych.workers.checkpoints.adapters import Adapter, Halves, Low, check_halves
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, SINGLE, CheckpointError
from triptych.workers.checkpoints.layouts.sizes import Config, Shapes, linear
from triptych.workers.checkpoints.layouts.unmerged import Found, Unmerged, read_base, refuse_lacking
from triptych.workers.checkpoints.shards import Tensor
from triptych.workers.shared.families import Family

EMBEDDING = "word_embeddings.weight"
ADAPTATIONS = "lora_adaptations"
BASE = "base"
"""The pool of the base alone."""

_ORIGINAL = ".parametrizations.weight.original"
_STACKED = ".parametrizations.weight.0.lora_"
_UNUSED = "roberta.pooler."
_EMBEDDINGS = ("roberta.embeddings.word_embeddings", "roberta.embeddings.token_type_embeddings")
_MODULES = ("mixer.Wqkv", "mixer.out_proj", "mlp.fc1", "mlp.fc2")
# XLM-RoBERTa counts positions from the padding token's id plus one. With rotary positions that is only a gap
# between the setting and the longest input.
_GAP = 2
# The model's own defaults for settings that a config leaves out.
_RANK, _ALPHA, _ROTARY_BASE = 4, 1, 20_000.0


def kind(family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
    if ADAPTATIONS not in config or config.get("position_embedding_type") != "rotary":
        return None
    return "upstream", ""


def adapter_folders(family: Family) -> Sequence[str]:
    return ()


def read(family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
    kept, held, layers = read_base(folder, _named)
    modules = adapted_modules(layers)
    refuse_lacking(folder, ["roberta.emb_ln.weight", *(module + _ORIGINAL for module in modules)], held)
    stack, rank, alpha = _stack(folder)
    if lacking := ", ".join(adapter for adapter in wanted if adapter not in (BASE, *stack)):
        raise CheckpointError(f"{folder / CONFIG} has no {lacking} in {ADAPTATIONS}; fetch it again")
    originals = {module: held[module + _ORIGINAL] for module in modules}
    pairs = {module: _halves(module, one.shape, len(stack), rank) for module, one in originals.items()}
    stacked = {name: one for name, one in held.items() if "lora_" in name and not name.startswith(_UNUSED)}
    check_halves(folder, stacked, [(pair, True) for pair in pairs.values()])
    adapters = {BASE: Adapter(rank, alpha, {})}
    for number, adapter in enumerate(stack):
        added = {}
        for module, original in originals.items():
            halves = [_part(held[key], number) for key in pairs[module]]
            a, b = halves[::-1] if module in _EMBEDDINGS else halves
            added[original.name] = Low(a, b, alpha / rank)
        adapters[adapter] = Adapter(rank, alpha, added)
    return Unmerged(kept, adapters)


def _named(tensor: str) -> str | None:
    unused = tensor.startswith(_UNUSED) or _STACKED in tensor
    return None if unused else tensor.replace(_ORIGINAL, ".weight")


def changes(family: Family, config: Config, weights: Mapping[str, tuple[int, ...]]) -> Config:
    return {
        "model_type": "xlm-roberta",
        "is_causal": family.causal,
        "rotary_emb_base": config.get("rotary_emb_base", _ROTARY_BASE),
        # One more than the longest input, as in all variants.
        "max_position_embeddings": config.get("max_position_embeddings", family.positions + _GAP) - _GAP + 1,
    }


def adapted_modules(layers: int) -> list[str]:
    """All modules that an adapter changes in a model of `layers` layers."""
    return [*_EMBEDDINGS] + [
        f"roberta.encoder.layers.{layer}.{module}" for layer in range(layers) for module in _MODULES
    ]


def _stack(folder: Path) -> tuple[list[str], int, float]:
    """The adapters in the order of the stack, as the pools name them, and their rank and alpha."""
    config = load_json(folder / CONFIG)
    names, rank, alpha = config[ADAPTATIONS], config.get("lora_rank", _RANK), config.get("lora_alpha", _ALPHA)
    if not isinstance(names, list) or not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise CheckpointError(
            f"{folder / CONFIG}: {ADAPTATIONS} must be a list, lora_rank and lora_alpha numbers"
        )
    return [str(name).replace(".", "-") for name in names], rank, alpha


def _halves(module: str, shape: Sequence[int], adapters: int, rank: int) -> Halves:
    """The keys of `lora_A` and `lora_B` of a module, and their shapes for a weight of `shape`."""
    shapes = [(adapters, rank, *shape[1:]), (adapters, *shape[:1], rank)]
    if module in _EMBEDDINGS:
        shapes.reverse()
    return dict(zip((f"{module}{_STACKED}A", f"{module}{_STACKED}B"), shapes, strict=True))


def _part(stacked: Tensor, number: int) -> Tensor:
    nbytes = stacked.nbytes // stacked.shape[0]
    return stacked._replace(shape=stacked.shape[1:], begin=stacked.begin + number * nbytes, nbytes=nbytes)


def tiny(family: Family, config: Config) -> Mapping[str, Shapes]:
    return {SINGLE: _base(config)}


def _base(config: Config) -> Shapes:
    hidden, inner, rows = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    for embedding, count in zip(_EMBEDDINGS, (rows, config["type_vocab_size"]), strict=True):
        yield from _adapted(config, embedding, count, hidden)
    yield from linear("roberta.emb_ln", hidden)
    sizes = ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner))
    for layer in range(config["num_hidden_layers"]):
        name = f"roberta.encoder.layers.{layer}"
        for module, (outputs, inputs) in zip(_MODULES, sizes, strict=True):
            yield from _adapted(config, f"{name}.{module}", outputs, inputs)
            yield f"{name}.{module}.bias", (outputs,)
        yield from linear(f"{name}.norm1", hidden)
        yield from linear(f"{name}.norm2", hidden)


def _adapted(config: Config, module: str, outputs: int, inputs: int) -> Shapes:
    yield module + _ORIGINAL, (outputs, inputs)
    yield from _halves(module, (outputs, inputs), len(config[ADAPTATIONS]), config["lora_rank"]).items()
