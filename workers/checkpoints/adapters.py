"""LoRA adapters as PEFT saves them: reads a file, and checks its modules and shapes against the base.

Rank, alpha and scale follow PEFT's LoraConfig (github.com/huggingface/peft).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.shards import ITEM_BYTES, Floats, Tensor, decode, read_header

Half = Literal["A", "B"]
HALVES: tuple[Half, ...] = ("A", "B")

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
class Low:
    """What an adapter adds to one weight: W + scale * B A, with A [r, in] and B [out, r]."""

    a: Tensor
    b: Tensor
    scale: float

    def factors(self) -> tuple[Floats, Floats]:
        """A [r, in] and B [out, r] in float32."""
        a, b = (decode(half.read(), half.dtype).reshape(half.shape) for half in (self.a, self.b))
        return a, b


class Adapter(NamedTuple):
    """One adapter: rank, alpha, and what it adds to each weight. Empty for the base alone."""

    r: int
    alpha: float
    added: Mapping[str, Low]


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


def read_rule(path: Path) -> Rule:
    """Read an `adapter_config.json`. Raises `CheckpointError` for settings that cannot be merged."""
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


def adapter_key(module: str, half: Half, suffix: str = "") -> str:
    """The key of one half of a module's adapter. `suffix` is `.<adapter>` if a file holds several."""
    return f"base_model.model.{module}.lora_{half}{suffix}.weight"


def read_adapters(
    path: Path,
    rule: Rule,
    modules: Mapping[str, Tensor],
    suffixes: Mapping[str, str],
    wanted: Sequence[str],
) -> dict[str, Adapter]:
    """Read the adapters `wanted` of one file: name -> adapter.

    `modules` maps each module that an adapter changes, as PEFT names it, to its weight in the base.
    `suffixes` maps all adapters of the file to the suffix of their keys. Each key of the file must be known
    and fit the base. Each of `wanted` must have both halves for every module. Raises `CheckpointError`, which
    names every key that is missing, unexpected, without its other half or of the wrong shape.
    """
    held = {tensor.name: tensor for tensor in read_header(path)}
    unknown = set(held)
    problems: list[str] = []
    for name, suffix in suffixes.items():
        for module, weight in modules.items():
            keys = [adapter_key(module, half, suffix) for half in HALVES]
            found = unknown.intersection(keys)
            unknown -= found
            if found or name in wanted:
                alone = ", without its other half" if found else ""
                problems += [f"missing{alone}: {key}" for key in keys if key not in found]
            rank = rule.rank(module)
            for key, shape in zip(keys, ((rank, *weight.shape[1:]), (*weight.shape[:1], rank)), strict=True):
                if key in found:
                    problems += misfits(held[key], shape)
    problems += [f"unexpected: {key}" for key in sorted(unknown)]
    refuse(path, problems)
    return {
        name: Adapter(
            rule.r,
            rule.lora_alpha,
            {
                weight.name: Low(
                    held[adapter_key(module, "A", suffixes[name])],
                    held[adapter_key(module, "B", suffixes[name])],
                    rule.scale(module),
                )
                for module, weight in modules.items()
            },
        )
        for name in wanted
    }


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise `CheckpointError` if there are problems."""
    if problems:
        lines = "\n  ".join(problems)
        raise CheckpointError(f"{path} does not fit its base, nothing was merged:\n  {lines}")


def misfits(tensor: Tensor, shape: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with half of an adapter that should have `shape`."""
    if tensor.shape != shape:
        yield f"wrong shape: {tensor.name} is {list(tensor.shape)}, should be {list(shape)}"
    if tensor.dtype not in ITEM_BYTES:
        yield f"wrong dtype: {tensor.name} is {tensor.dtype}"


_Value = TypeVar("_Value", int, float)


def _matching(patterns: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    # A pattern matches the end of a module's name, after a dot.
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return otherwise
