"""The weights of a shared variant: the base, all adapters, and a projector for each.

An adapter is the folder `adapters/<adapter>/`, as PEFT saves one, with the base's names. It has no projector,
because the projector is part of the pooler. Each adapter's projector is merged, and stored with the base's
weights as `multi_vector_projectors.<adapter>`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints.adapters import CONFIG, WEIGHTS, Adapter, adapter_key, read_adapters
from triptych.workers.checkpoints.layout import PROJECTOR, PROJECTORS, CheckpointError
from triptych.workers.checkpoints.layouts.unmerged import Part, Plan, Unmerged
from triptych.workers.checkpoints.shards import Tensor, read_header, read_tensors

FOLDER = "adapters/{}"


def plan(unmerged: Unmerged, adapters: Mapping[str, Adapter]) -> Plan:
    """The files of a shared variant. Raises `CheckpointError` for an adapter that vLLM cannot load."""
    files = {file: [*_base(parts, adapters)] for file, parts in unmerged.shards.items()}
    configs = {}
    for name, adapter in adapters.items():
        folder = FOLDER.format(name)
        files[f"{folder}/{WEIGHTS}"] = [*_adapter(unmerged.weights, adapter)]
        configs[f"{folder}/{CONFIG}"] = _config(name, adapter)
    return files, configs


def projector_of(adapter: str) -> str:
    return f"{PROJECTORS}.{adapter}"


def read_all(folder: Path, adapters: Iterable[str]) -> list[Tensor]:
    """All tensors of a variant, those of an adapter as `adapters/<adapter>/<key>`."""
    return read_tensors(folder) + [
        tensor._replace(name=f"{FOLDER.format(adapter)}/{tensor.name}")
        for adapter in adapters
        for tensor in read_header(folder / FOLDER.format(adapter) / WEIGHTS)
    ]


def check_adapters(folder: Path, base: Mapping[str, Tensor], adapters: Sequence[str]) -> int:
    """The rank of the adapters.

    Raises `CheckpointError` unless they fit the base, and all change the same modules.
    """
    folders = [folder / FOLDER.format(adapter) for adapter in adapters]
    keys = {tensor.name for one in folders for tensor in read_header(one / WEIGHTS)}
    weights = {name.removesuffix(".weight"): tensor for name, tensor in base.items()}
    modules = {module: tensor for module, tensor in weights.items() if adapter_key(module, "A") in keys}
    return max(read_adapters(one, modules, {"": ""}, [""])[""].r for one in folders)


def _base(parts: Iterable[Part], adapters: Mapping[str, Adapter]) -> Iterator[Part]:
    for part in parts:
        if not part.name.startswith(f"{PROJECTOR}."):
            yield part
            continue
        for adapter, change in adapters.items():
            name = part.name.replace(PROJECTOR, projector_of(adapter))
            yield Part(name, part.tensor, change.added.get(part.tensor.name))


def _adapter(weights: Mapping[str, Tensor], adapter: Adapter) -> Iterator[Part]:
    for name, tensor in weights.items():
        low = adapter.added.get(tensor.name)
        if low is not None and not name.startswith(f"{PROJECTOR}."):
            module = name.removesuffix(".weight")
            yield Part(adapter_key(module, "A"), low.a)
            yield Part(adapter_key(module, "B"), low.b)


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
