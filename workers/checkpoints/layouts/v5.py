"""The layout of jinaai/jina-embeddings-v5-text-small and -nano: one PEFT adapter per folder.

The base has the names of a bare transformers model (`layers.N...`, `embed_tokens`, `norm`), without a head.
An adapter is `adapters/<adapter>/`, with keys `base_model.model.layers.N...`. Both models have the same
`model_type`; the encoder, EuroBERT, has `is_decoder: false`. A variant has the names of `Qwen3ForCausalLM`
and `LlamaForCausalLM` (`model.layers.N...`). EuroBERT is a Llama whose attention looks both ways.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from triptych.workers.checkpoints.adapters import WEIGHTS, Adapter, halves, read_adapters
from triptych.workers.checkpoints.layout import SINGLE
from triptych.workers.checkpoints.layouts.sizes import DECODER_MODULES, Config, Shapes, decoder, decoder_sizes
from triptych.workers.checkpoints.layouts.unmerged import Found, Unmerged, read_base, refuse_lacking
from triptych.workers.shared.families import Family

EMBEDDING = "embed_tokens.weight"
MODEL_TYPE = "jina_embeddings_v5"
# Of a tiny checkpoint.
RANK = 32
_PREFIX = "model."


def kind(family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
    if config.get("model_type") != MODEL_TYPE or config.get("is_decoder", True) != family.causal:
        return None
    return "upstream", ""


def adapter_folders(family: Family) -> Sequence[str]:
    return [f"adapters/{adapter}" for adapter in family.adapters]


def read(family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
    kept, _, layers = read_base(folder, _named)
    base = Unmerged(kept, {}).weights
    modules = [f"layers.{layer}.{module}" for layer in range(layers) for module in DECODER_MODULES]
    needed = [EMBEDDING, "norm.weight", *(f"{module}.weight" for module in modules)]
    refuse_lacking(folder, [_PREFIX + name for name in needed], base)
    weights = {module: base[f"{_PREFIX}{module}.weight"] for module in modules}
    adapters: dict[str, Adapter] = {}
    for adapter in wanted:
        adapters |= read_adapters(folder / "adapters" / adapter, weights, {adapter: ""}, [adapter])
    return Unmerged(kept, adapters)


def _named(tensor: str) -> str | None:
    # Embeddings do not need the output head.
    return None if tensor.startswith("lm_head.") else _PREFIX + tensor.removeprefix(_PREFIX)


def changes(family: Family, config: Config, weights: Mapping[str, tuple[int, ...]]) -> Config:
    return {
        "model_type": "qwen3" if family.causal else "llama",
        "is_causal": family.causal,
        # vLLM's classes have an output head. Tied, it takes no memory.
        "tie_word_embeddings": True,
        # One more than the longest input, because vLLM may reserve one for an answer. Positions only size
        # the table of rotary embeddings.
        "max_position_embeddings": config.get("max_position_embeddings", family.positions) + 1,
    }


def tiny(family: Family, config: Config) -> Mapping[str, Shapes]:
    adapters = {f"{folder}/{WEIGHTS}": _adapter(config) for folder in adapter_folders(family)}
    return {SINGLE: decoder(config, prefix="", bias=False), **adapters}


def _adapter(config: Config) -> Shapes:
    for layer in range(config["num_hidden_layers"]):
        for module, shape in decoder_sizes(config).items():
            yield from halves(f"layers.{layer}.{module}", shape, RANK).items()
