"""Reads the adapter file, and checks its modules and shapes against the base.

Rank, alpha and scale follow PEFT's LoraConfig (github.com/huggingface/peft).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from workers.checkpoints import layout
from workers.checkpoints.floats import Floats, decode
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import ITEM_BYTES, Tensor, load_json, read_header
from workers.shared.contract import POOLS, PoolName

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


@dataclass(frozen=True, slots=True)
class Rule:
    """Rank and scale from `adapter_config.json`; the patterns override them per module."""

    r: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool

    def rank(self, module: str) -> int:
        return _matching(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        rank = self.rank(module)
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


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
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"{path} has r={r!r} and lora_alpha={alpha!r}; both must be numbers")
    return Rule(
        r=r,
        alpha=alpha,
        rank_pattern=config.get("rank_pattern") or {},
        alpha_pattern=config.get("alpha_pattern") or {},
        rslora=bool(config.get("use_rslora")),
    )


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
    problems = _key_problems(set(held), modules, tasks)
    for task in POOLS:
        for module in modules:
            problems += _shape_problems(held, weights[module], module, task, rule.rank(module))
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


def _key_problems(held: set[str], modules: list[str], tasks: Sequence[PoolName]) -> list[str]:
    problems, known = [], set()
    for task in POOLS:
        for module in modules:
            halves = {layout.adapter_key(module, half, task) for half in layout.HALVES}
            known |= halves
            if halves & held or task in tasks:
                alone = ", without its other half" if halves & held else ""
                problems += [f"missing{alone}: {key}" for key in sorted(halves - held)]
    return [f"unexpected: {key}" for key in sorted(held - known)] + problems


def _shape_problems(
    held: Mapping[str, Tensor], weight: Tensor, module: str, task: PoolName, rank: int
) -> list[str]:
    problems = []
    wanted = {"A": (rank, *weight.shape[1:]), "B": (*weight.shape[:1], rank)}
    for half in layout.HALVES:
        tensor = held.get(layout.adapter_key(module, half, task))
        if tensor and tensor.shape != wanted[half]:
            is_, should_be = list(tensor.shape), list(wanted[half])
            problems.append(f"wrong shape: {tensor.name} is {is_}, should be {should_be}")
        if tensor and tensor.dtype not in ITEM_BYTES:
            problems.append(f"wrong dtype: {tensor.name} is {tensor.dtype}")
    return problems


_Value = TypeVar("_Value", int, float)


def _matching(patterns: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    # A pattern matches the end of a module's name, after a dot.
    name = module if module == layout.PROJECTOR else f"model.language_model.{module}"
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return otherwise
