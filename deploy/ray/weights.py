"""What a replica needs of a GPU's memory: the size of its weights, and whether its share holds them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.local.plan import GPU_SHARE
from deploy.ray.config import Pool
from workers.checkpoints.layout import INDEX, UPSTREAM_ID
from workers.shared.contract import PoolName

GIB = 2**30
UPSTREAM = re.escape(UPSTREAM_ID) + "(-vllm-.+)?"
# 3.75 billion parameters (the model card), two bytes each, the adapters merged. With the adapters apart it
# is the "about 8 GB" that the README speaks of.
UPSTREAM_GIB = 3.75e9 * 2 / GIB
# Keys and values of one token, in bfloat16: 36 layers, 2 heads of 128 values each (Qwen2.5-VL-3B's config).
CACHE_BYTES_PER_TOKEN = 36 * 2 * 2 * 128 * 2
# Activations of a step, graphs and the CUDA context. Assumed, not measured; it only ever warns.
WORKING_GIB = 1.0

Holds = Literal["yes", "tight", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a replica's share of a GPU holds it, and the numbers, in words; sizes in GiB."""

    holds: Holds
    text: str


def weights_gib(model: str) -> float | None:
    """GiB of the weights of a folder or of a Hugging Face id, without asking the network; None: unknown.

    An id is looked up in the local cache; of jinaai/jina-embeddings-v4 and its variants the size is known.
    """
    folder = Path(model) if Path(model).is_dir() else _cached(model)
    size = _files_gib(folder) if folder else None
    if size is None and not Path(model).exists() and re.fullmatch(UPSTREAM, model):
        return UPSTREAM_GIB
    return size


def utilization(pool: Pool) -> float:
    """The share of each of its GPUs' memory that a replica's engine takes; 0 without a GPU."""
    if not pool.gpus_each:
        return 0.0
    return float(pool.worker.get("gpu_memory_utilization") or GPU_SHARE * min(1.0, pool.gpus_each))


def verdict(name: PoolName, pool: Pool, weights: float | None, gpu_memory_gib: float | None) -> Verdict:
    """Whether a replica fits into its share of GPUs of that size. Only the weights alone can make it a no."""
    if gpu_memory_gib is None:
        return Verdict("unknown", "the GPU's memory is unknown, so whether the weights fit is not checked")
    if weights is None:
        return Verdict("unknown", "the size of the weights is unknown, so whether they fit is not checked")
    if conversion := _conversion(pool):
        return Verdict("unknown", f"what the weights take after {conversion} is unknown, and not checked")
    each = weights / pool.tensor_parallel
    room = utilization(pool) * gpu_memory_gib
    place = f"{_place(pool)} of {gpu_memory_gib:g} GiB ({room:.1f} GiB)"
    on_each = f" on each of {pool.tensor_parallel} GPUs" if pool.tensor_parallel > 1 else ""
    if each > room:
        return Verdict("no", f"weights of {each:.1f} GiB{on_each} do not fit in {place}")
    cache = _cache_gib(name, pool)
    need = each + cache + WORKING_GIB
    parts = f"weights {each:.1f}{on_each} + cache {cache:.1f} + about {WORKING_GIB:g} to work in"
    if need > room:
        return Verdict("tight", f"{parts} is {need:.1f} GiB, more than {place}")
    return Verdict("yes", f"{parts} is {need:.1f} GiB, within {place}")


def least_gib(name: PoolName, pool: Pool, weights: float) -> float | None:
    """GiB without which an engine does not start, whatever else it takes; None: not known."""
    if _conversion(pool):
        return None
    return weights / pool.tensor_parallel + _cache_gib(name, pool)


def _cache_gib(name: PoolName, pool: Pool) -> float:
    """What `kv_cache_gib` says; else what one input of full length needs, less than which vLLM refuses."""
    if given := pool.worker.get("kv_cache_gib"):
        return float(given)
    if name == "rerank":
        # Another model, whose shape is not known here.
        return 0.0
    return int(pool.setting("max_tokens")) * CACHE_BYTES_PER_TOKEN / pool.tensor_parallel / GIB


def _conversion(pool: Pool) -> str | None:
    """What makes the weights in memory another size than their files."""
    if method := pool.worker.get("quantization"):
        return f"quantization {method}"
    dtype = pool.setting("dtype")
    return None if dtype == "auto" else f"conversion to {dtype}"


def _place(pool: Pool) -> str:
    if given := pool.worker.get("gpu_memory_utilization"):
        return f"gpu_memory_utilization {float(given):g} of a GPU"
    return f"{pool.gpus_each:g} of a GPU" if pool.gpus_each < 1 else "a GPU"


def _cached(model: str) -> Path | None:
    """The folder of an id in Hugging Face's cache on this machine."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _files_gib(folder: Path) -> float | None:
    """The files that the index names, or all in the folder; None where there are none, or not all."""
    try:
        if (folder / INDEX).exists():
            names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
            files = [folder / name for name in sorted(names)]
        else:
            files = sorted(folder.glob("*.safetensors"))
        total = sum(file.stat().st_size for file in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return total / GIB if total else None
