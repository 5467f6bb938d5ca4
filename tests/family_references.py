"""Vectors of published models in transformers with unmerged adapters, from a folder in their layout."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import (
    EuroBertConfig,
    EuroBertModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from triptych.workers.shared.contract import Role
from triptych.workers.shared.families import V3, Family

# The models are so small that more threads only wait for each other.
torch.set_num_threads(1)

# v3's published names of weights and those in transformers, replaced in this order.
V3_NAMES = {
    "roberta.": "",
    "emb_ln": "embeddings.LayerNorm",
    "encoder.layers": "layers",
    "mixer.out_proj": "self_attn.o_proj",
    "norm1": "post_attention_layernorm",
    "norm2": "post_mlp_layernorm",
}
WEIGHT, PARTS = ".parametrizations.weight.original", ".parametrizations.weight.0.lora_"


class Change(NamedTuple):
    """What an adapter adds to the output of a module: a forward hook."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        [given] = inputs
        if isinstance(module, nn.Embedding):
            # lora_A has a row for each token.
            return output + self.scale * functional.embedding(given, self.a) @ self.b
        return output + self.scale * (given @ self.a.T @ self.b.T)


class Reference:
    """A model and its adapters, which are applied while it computes."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family, self.folder = family, folder
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text())
        weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        made = _v3(config, weights) if family is V3 else _v5(family, folder, config, weights)
        self._model, self._changes = made
        self._model.eval()
        self._modules = dict(self._model.named_modules())

    def token_ids(self, text: str, role: Role, limit: int | None = None) -> list[int]:
        """The token ids of a text with its prefix, truncated as transformers does it."""
        self._tokenizer.no_truncation()
        if limit is not None:
            self._tokenizer.enable_truncation(limit)
        return list(self._tokenizer.encode(self.family.prefixes[role] + text).ids)

    def states(self, adapter: str, token_ids: Sequence[int]) -> torch.Tensor:
        """Hidden states [tokens, h]."""
        with ExitStack() as hooks, torch.inference_mode():
            for name, change in self._changes.get(adapter, {}).items():
                hooks.callback(self._modules[name].register_forward_hook(change).remove)
            states: torch.Tensor = self._model(torch.tensor([token_ids])).last_hidden_state[0]
        return states

    def vector(self, adapter: str, token_ids: Sequence[int]) -> torch.Tensor:
        """The normalized vector."""
        states = self.states(adapter, token_ids)
        return functional.normalize(states[-1] if self.family.pooling == "last" else states.mean(0), dim=-1)


Changes = Mapping[str, Mapping[str, Change]]
"""Adapter -> module -> what it adds."""


def _v5(
    family: Family, folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[PreTrainedModel, Changes]:
    kept = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    model = Qwen3Model(Qwen3Config(**kept)) if family.causal else EuroBertModel(EuroBertConfig(**kept))
    model.load_state_dict(weights)
    changes: dict[str, dict[str, Change]] = {}
    for adapter in family.adapters:
        own = folder / "adapters" / adapter
        settings = json.loads((own / "adapter_config.json").read_text())
        scale = settings["lora_alpha"] / settings["r"]
        halves = {key: half.float() for key, half in load_file(own / "adapter_model.safetensors").items()}
        its = changes[adapter] = {}
        for key in (key for key in halves if ".lora_A." in key):
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            its[module] = Change(halves[key], halves[key.replace("lora_A", "lora_B")], scale)
    return model, changes


def _v3(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> tuple[PreTrainedModel, Changes]:
    known = JinaEmbeddingsV3Config().to_dict().keys() - {"architectures", "model_type", "rope_parameters"}
    rope = {"rope_type": "default", "rope_theta": config["rotary_emb_base"]}
    settings = {key: value for key, value in config.items() if key in known}
    model = JinaEmbeddingsV3Model(
        JinaEmbeddingsV3Config(**settings, rope_parameters=rope), add_pooling_layer=False
    )
    base = {name.replace(WEIGHT, ".weight"): weight for name, weight in weights.items() if PARTS not in name}
    model.load_state_dict({part: its for name, weight in base.items() for part, its in _split(name, weight)})
    changes: dict[str, dict[str, Change]] = {}
    scale = config["lora_alpha"] / config["lora_rank"]
    for number, adapter in enumerate(config["lora_adaptations"]):
        its = changes[adapter.replace(".", "-")] = {}
        for key in (key for key in weights if key.endswith(PARTS + "A")):
            a, b = weights[key][number], weights[key.replace("lora_A", "lora_B")][number]
            for name, part in _split(key.replace(PARTS + "A", ".weight"), b):
                its[name.removesuffix(".weight")] = Change(a, part, scale)
    return model, changes


def _split(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A weight of v3 under its names in transformers, which has queries, keys and values apart."""
    for published, ours in V3_NAMES.items():
        name = name.replace(published, ours)
    if "mixer.Wqkv" not in name:
        yield name, weight
        return
    for part, its in zip("qkv", weight.chunk(3), strict=True):
        yield name.replace("mixer.Wqkv", f"self_attn.{part}_proj"), its
