"""LoRA adapters as PEFT saves them: reads a folder, and checks its modules and shapes against the base.

Rank, alpha and scale follow PEFT's LoraConfig (github.com/huggingface/peft).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.shards import ITEM_BYTES, Floats, Tensor, decode, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

Halves = Mapping[str, tuple[int, ...]]
"""The keys of both halves of an adapted weight, A first, and their shapes."""

# Adapter settings that would need another merge, and their neutral values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    # With other values, PEFT subtracts the initial adapter from the base.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
}


class Low(NamedTuple):
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
        return int(_matching(self.rank_pattern, module, self.r))

    def scale(self, module: str) -> float:
        rank, alpha = self.rank(module), _matching(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def adapter_key(module: str, half: Literal["A", "B"], suffix: str = "") -> str:
    """The key of one half of a module's adapter. `suffix` is `.<adapter>` if a file holds several."""
    return f"base_model.model.{module}.lora_{half}{suffix}.weight"


def halves(module: str, weight: Sequence[int], rank: int, suffix: str = "") -> Halves:
    """The halves that adapt a module whose weight has the shape `weight`."""
    return {
        adapter_key(module, "A", suffix): (rank, *weight[1:]),
        adapter_key(module, "B", suffix): (*weight[:1], rank),
    }


def read_adapters(
    folder: Path, modules: Mapping[str, Tensor], suffixes: Mapping[str, str], wanted: Sequence[str]
) -> dict[str, Adapter]:
    """Read the adapters `wanted` of one folder: name -> adapter.

    `modules` maps each module that an adapter changes, as PEFT names it, to its weight in the base.
    `suffixes` maps all adapters of the folder to the suffix of their keys. Raises `CheckpointError` for
    settings that cannot be merged, and as `check_halves`; a folder may lack adapters that are not wanted.
    """
    rule = _read_rule(folder / CONFIG)
    held = {tensor.name: tensor for tensor in read_header(folder / WEIGHTS)}
    pairs = {
        (name, module): halves(module, weight.shape, rule.rank(module), suffix)
        for name, suffix in suffixes.items()
        for module, weight in modules.items()
    }
    check_halves(folder / WEIGHTS, held, [(pair, name in wanted) for (name, _), pair in pairs.items()])
    added: dict[str, dict[str, Low]] = {name: {} for name in wanted}
    for name, module in product(wanted, modules):
        a, b = (held[key] for key in pairs[name, module])
        added[name][modules[module].name] = Low(a, b, rule.scale(module))
    return {name: Adapter(rule.r, rule.lora_alpha, lows) for name, lows in added.items()}


def check_halves(path: Path, held: Mapping[str, Tensor], pairs: Iterable[tuple[Halves, bool]]) -> None:
    """Raise `CheckpointError` unless `held` has the halves of each adapted weight, and nothing else.

    `pairs` are the halves, and whether they have to be there; a half may never be alone. The error names
    every key that is missing, unexpected, without its other half, or of the wrong shape.
    """
    unknown = set(held)
    problems: list[str] = []
    for shapes, needed in pairs:
        found = unknown.intersection(shapes)
        unknown -= found
        for key, shape in shapes.items():
            if key not in found:
                if found:
                    problems.append(f"missing, without its other half: {key}")
                elif needed:
                    problems.append(f"missing: {key}")
            elif (tensor := held[key]).shape != shape:
                problems.append(f"wrong shape: {key} is {list(tensor.shape)}, should be {list(shape)}")
            elif tensor.dtype not in ITEM_BYTES:
                problems.append(f"wrong dtype: {key} is {tensor.dtype}")
    problems += [f"unexpected: {key}" for key in sorted(unknown)]
    if problems:
        lines = "\n  ".join(problems)
        raise CheckpointError(f"{path} does not fit its base, nothing was merged:\n  {lines}")


def _read_rule(path: Path) -> Rule:
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


def _matching(patterns: Mapping[str, float] | None, module: str, otherwise: float) -> float:
    # A pattern matches the end of a module's name, after a dot.
    found = (value for end, value in (patterns or {}).items() if re.fullmatch(rf"(.*\.)?({end})", module))
    return next(found, otherwise)
