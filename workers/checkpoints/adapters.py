"""Reads the adapter file, and checks its modules and shapes against the base.

Rank, alpha and scale follow PEFT's LoraConfig (github.com/huggingface/peft).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.shards import ITEM_BYTES, Floats, Tensor, decode, read_header
from triptych.workers.shared.contract import POOLS, PoolName

# Adapter settings that would need another merge, and their neutral values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter of one module: W + scale * B A, with A [r, in] and B [out, r]."""

    a: Tensor
    b: Tensor
    scale: float

    def factors(self) -> tuple[Floats, Floats]:
        """A [r, in] and B [out, r] in float32."""
        a, b = (decode(half.read(), half.dtype).reshape(half.shape) for half in (self.a, self.b))
        return a, b


class Rule(msgspec.Struct, frozen=True):
    """Rank and scale from `adapter_config.json`; the patterns override them per module."""

    r: Annotated[int, msgspec.Meta(ge=1)]
    lora_alpha: float
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None

    def rank(self, module: str) -> int:
        return _matching(self.rank_pattern or {}, module, self.r)

    def scale(self, module: str) -> float:
        rank = self.rank(module)
        alpha = _matching(self.alpha_pattern or {}, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_rule(folder: Path) -> Rule:
    """Read the rule of an upstream layout. Raises `CheckpointError` for settings that cannot be merged."""
    path = folder / layout.ADAPTER_CONFIG
    config = load_json(path)
    strange = {
        key: config[key] for key, neutral in _NEUTRAL.items() if config.get(key, neutral[0]) not in neutral
    }
    if strange:
        said = ", ".join(f"{key}={value!r}" for key, value in strange.items())
        raise CheckpointError(f"{path} has settings that cannot be merged: {said}")
    try:
        return msgspec.convert(config, Rule)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path} is invalid: {error}") from error


def read_adapters(
    folder: Path, base: Iterable[Tensor], layers: int, tasks: Sequence[PoolName]
) -> dict[PoolName, dict[str, Adapter]]:
    """Read the adapters of `tasks`: task -> name of a base tensor -> its adapter.

    Each key of the file, also of other tasks, must be known and fit the base. Each of `tasks` must have an
    adapter for every module of every layer and for the projector. Raises `CheckpointError`, which names every
    key that is missing, unexpected, without its other half or of the wrong shape.
    """
    rule = read_rule(folder)
    weights = {module: tensor for tensor in base if (module := layout.module_of(tensor.name))}
    modules = layout.adapted_modules(layers)
    lacking = [module for module in modules if module not in weights]
    if lacking:
        raise CheckpointError(f"the base in {folder} has no {', '.join(lacking)}; fetch it again")
    held = {tensor.name: tensor for tensor in read_header(folder / layout.ADAPTER_WEIGHTS)}
    unknown = set(held)
    problems: list[str] = []
    for task in POOLS:
        for module in modules:
            keys = [layout.adapter_key(module, half, task) for half in layout.HALVES]
            found = unknown.intersection(keys)
            unknown -= found
            if found or task in tasks:
                alone = ", without its other half" if found else ""
                problems += [f"missing{alone}: {key}" for key in keys if key not in found]
            rank, weight = rule.rank(module), weights[module].shape
            for key, shape in zip(keys, ((rank, *weight[1:]), (*weight[:1], rank)), strict=True):
                if key in found:
                    problems += _misfits(held[key], shape)
    problems += [f"unexpected: {key}" for key in sorted(unknown)]
    if problems:
        lines = "\n  ".join(problems)
        raise CheckpointError(
            f"{folder / layout.ADAPTER_WEIGHTS} does not fit its base, nothing was merged:\n  {lines}"
        )
    return {
        task: {
            weights[module].name: Adapter(
                held[layout.adapter_key(module, "A", task)],
                held[layout.adapter_key(module, "B", task)],
                rule.scale(module),
            )
            for module in modules
        }
        for task in tasks
    }


def _misfits(tensor: Tensor, shape: tuple[int, ...]) -> Iterator[str]:
    if tensor.shape != shape:
        yield f"wrong shape: {tensor.name} is {list(tensor.shape)}, should be {list(shape)}"
    if tensor.dtype not in ITEM_BYTES:
        yield f"wrong dtype: {tensor.name} is {tensor.dtype}"


_Value = TypeVar("_Value", int, float)


def _matching(patterns: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    # A pattern matches the end of a module's name, after a dot.
    name = module if module == layout.PROJECTOR else f"model.language_model.{module}"
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return otherwise
