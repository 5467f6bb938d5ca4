"""GPU memory that an engine needs: the size of its weights, and whether its share holds them."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from triptych.deploy.common.environments import GPU_SHARE
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL, V4

GIB = 2**30
UPSTREAM = re.escape(V4.names[1]) + "(-vllm-.+)?"
# 3.75 billion parameters (model card) of two bytes, with the adapters merged.
UPSTREAM_GIB = 3.75e9 * 2 / GIB
# Three adapters of rank 32 for all linear layers of the language model: 0.18 billion parameters.
ADAPTERS_GIB = 0.18e9 * 2 / GIB


class Verdict(NamedTuple):
    """Whether an engine's share of a GPU holds it, and a text with the sizes in GiB."""

    holds: Literal["yes", "no", "unknown"]
    text: str


def weights_gib(model: str, pool: PoolName) -> float | None:
    """GiB of a pool's weights in a folder or of a Hugging Face id, without network access; None if unknown.

    An id is looked up in the local cache. The size of jinaai/jina-embeddings-v4 and its variants is known.
    """
    folder = Path(model) if Path(model).is_dir() else _cached(model)
    shared = pool == BY_POOL[pool].shared_pool
    size = _files_gib(folder, adapters=shared) if folder else None
    if size is None and not Path(model).exists() and re.fullmatch(UPSTREAM, model):
        return UPSTREAM_GIB + ADAPTERS_GIB * shared
    return size


def verdict(
    settings: WorkerSettings, gpus: float, weights: float | None, gpu_memory_gib: float | None
) -> Verdict:
    """Whether an engine with `gpus` GPUs of that size, under 1 a part of one, can start.

    It cannot start (no) without room for its weights and the cache of one input.
    """
    if gpu_memory_gib is None:
        return _unknown("the GPU's memory")
    if weights is None:
        return _unknown("the size of the weights")
    if settings.quantization or settings.dtype != "auto":
        return _unknown("the size of the converted weights")
    # With an explicit cache size vLLM does not look at its share.
    part = min(1.0, gpus)
    share = part if settings.kv_cache_gib else settings.gpu_memory_utilization or GPU_SHARE * part
    room = share * gpu_memory_gib
    weights, cache = weights / settings.tensor_parallel, _cache_gib(settings)
    need = weights + cache
    text = f"weights {weights:.1f} + cache {cache:.1f} = {need:.1f} GiB"
    where = f"its share of a GPU of {gpu_memory_gib:.4g} GiB, {room:.1f} GiB"
    if need > room:
        return Verdict("no", f"{text}, more than {where}")
    return Verdict("yes", f"{text}, within {where}")


def _unknown(what: str) -> Verdict:
    return Verdict("unknown", f"{what} is unknown, so GPU memory is not checked")


def _cache_gib(settings: WorkerSettings) -> float:
    """The configured cache, else one input of full length: vLLM refuses to start with less."""
    if settings.kv_cache_gib:
        return settings.kv_cache_gib
    family = BY_POOL[settings.task] if settings.task else V4
    longest = min(settings.max_tokens, family.positions)
    return longest * family.cache_bytes / settings.tensor_parallel / GIB


def _cached(model: str) -> Path | None:
    """Folder of an id in the local Hugging Face cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _files_gib(folder: Path, *, adapters: bool) -> float | None:
    """Size of the weights in a folder, None without any. A shared engine also holds the `adapters`."""
    files = [*folder.glob("*.safetensors")]
    if adapters:
        files += folder.glob("adapters/**/*.safetensors")
    total = sum(file.stat().st_size for file in files)
    return total / GIB if total else None
