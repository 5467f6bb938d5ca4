"""The weights of a shared variant: the base, all adapters, and a projector for each.

An adapter is the folder `adapters/<adapter>/`, as PEFT saves one, with the base's names. It has no projector,
because the projector is part of the pooler. Each adapter's projector is merged, and stored with the base's
weights as `multi_vector_projectors.<adapter>`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints.adapters import (
    HALVES,
    Adapter,
    adapter_key,
    read_adapters,
    read_rule,
)
from triptych.workers.checkpoints.layout import PROJECTOR, PROJECTORS, CheckpointError
from triptych.workers.checkpoints.layouts.unmerged import Part, Plan, Weight
from triptych.workers.checkpoints.shards import Tensor, read_header, read_tensors

FOLDER = "adapters/{}"
CONFIG = f"{FOLDER}/adapter_config.json"
WEIGHTS = f"{FOLDER}/adapter_model.safetensors"


def plan(shards: Mapping[str, Sequence[Weight]], adapters: Mapping[str, Adapter]) -> Plan:
    """The files of a shared variant. Raises `CheckpointError` for an adapter that vLLM cannot load."""
    weights = [weight for shard in shards.values() for weight in shard]
    files = {file: [*_base(shard, adapters)] for file, shard in shards.items()}
    files |= {WEIGHTS.format(name): [*_adapter(weights, adapter)] for name, adapter in adapters.items()}
    return Plan(files, {CONFIG.format(name): _config(name, adapter) for name, adapter in adapters.items()})


def projector_of(adapter: str, name: str) -> str:
    """The name of a tensor of an adapter's projector; `name` is that of the base."""
    return f"{PROJECTORS}.{adapter}{name.removeprefix(PROJECTOR)}"


def read_all(folder: Path, adapters: Iterable[str]) -> list[Tensor]:
    """All tensors of a variant, those of an adapter as `adapters/<adapter>/<key>`."""
    return read_tensors(folder) + [
        replace(tensor, name=f"{FOLDER.format(adapter)}/{tensor.name}")
        for adapter in adapters
        for tensor in read_header(folder / WEIGHTS.format(adapter))
    ]


def check_adapters(folder: Path, base: Mapping[str, Tensor], adapters: Sequence[str]) -> int:
    """The rank of the adapters.

    Raises `CheckpointError` unless they fit the base, and all change the same modules.
    """
    keys = {tensor.name for adapter in adapters for tensor in read_header(folder / WEIGHTS.format(adapter))}
    weights = {name.removesuffix(".weight"): tensor for name, tensor in base.items()}
    modules = {module: tensor for module, tensor in weights.items() if adapter_key(module, "A") in keys}
    ranks = []
    for adapter in adapters:
        rule = read_rule(folder / CONFIG.format(adapter))
        read_adapters(folder / WEIGHTS.format(adapter), rule, modules, {adapter: ""}, [adapter])
        ranks.append(rule.r)
    return max(ranks)


def _base(shard: Iterable[Weight], adapters: Mapping[str, Adapter]) -> Iterator[Part]:
    for name, tensor in shard:
        if name.startswith(f"{PROJECTOR}."):
            for adapter, its in adapters.items():
                yield Part(projector_of(adapter, name), tensor, its.added.get(tensor.name))
        else:
            yield Part(name, tensor, None)


def _adapter(weights: Iterable[Weight], adapter: Adapter) -> Iterator[Part]:
    for name, tensor in weights:
        low = adapter.added.get(tensor.name)
        if low is not None and not name.startswith(f"{PROJECTOR}."):
            for half, its in zip(HALVES, (low.a, low.b), strict=True):
                yield Part(adapter_key(name.removesuffix(".weight"), half), its, None)


def _config(name: str, adapter: Adapter) -> dict[str, Any]:
    # Each projector is merged, so its rank does not matter.
    added = {weight: low for weight, low in adapter.added.items() if not weight.startswith(f"{PROJECTOR}.")}
    found = {(low.a.shape[0], low.scale): weight for weight, low in added.items()}
    if not found:
        raise CheckpointError(f"the adapter {name} changes no weight of the language model")
    if len(found) > 1:
        said = ", ".join(f"rank {rank} and scale {scale:g} of {one}" for (rank, scale), one in found.items())
        raise CheckpointError(
            f"the adapter {name} differs between weights ({said}), so one engine cannot hold it beside "
            "others; merge it for a pool of its own"
        )
    [(rank, scale)] = found
    modules = {weight.removesuffix(".weight").rpartition(".")[2] for weight in added}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank * scale,
        "target_modules": sorted(modules),
        "bias": "none",
    }
