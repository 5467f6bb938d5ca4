"""Arguments of vLLM's `AsyncEngineArgs` for a variant and for a cross-encoder."""

from pathlib import Path
from typing import Any, get_args

from triptych.workers.checkpoints.layout import MAX_PIXELS, MIN_PIXELS, CheckpointError
from triptych.workers.checkpoints.variant import Variant
from triptych.workers.settings import WorkerSettings

# So little of a GPU's memory is free wherever an engine can start at all.
_MINIMAL_UTILIZATION = 0.01


def engine_args(variant: Variant, settings: WorkerSettings) -> dict[str, Any]:
    """The arguments for a variant. Raises `CheckpointError` for adapters that the engine cannot hold."""
    from vllm.config import PoolerConfig

    family = variant.family
    # Before 0.32, vLLM reserves a token for an answer when it continues a chunked prompt. A prompt of exactly
    # `max_model_len` tokens would never finish.
    max_model_len = context_of(variant, settings) + 1
    args: dict[str, Any] = {
        "model": str(variant.path),
        "served_model_name": family.name,
        "convert": "none",
        # LAST only tells vLLM that chunked prefill is safe. The plugin does the pooling.
        "pooler_config": PoolerConfig(task="embed", seq_pooling_type="LAST"),
        "hf_overrides": {
            "architectures": [family.architecture],
            "multi_vector_dimensions": variant.multivector_dimensions or 0,
            "span_pooling": family.pooling,
            "projectors": variant.adapters,
        },
        "dtype": dtype_of(variant, settings),
        "max_model_len": max_model_len,
        "enable_chunked_prefill": family.causal,
    }
    if not family.causal:
        # Attention looks both ways, so a step has to hold the longest input.
        args["max_num_batched_tokens"] = max(settings.batch_tokens, max_model_len)
    if variant.adapters:
        args |= _adapter_args(variant, args["dtype"])
    if family.images:
        args |= {
            "limit_mm_per_prompt": {"image": 1, "video": 0},
            # Official -vllm- folders have other bounds than the model's own code.
            "mm_processor_kwargs": {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS},
            # Images seldom repeat, and the cache would hash all pixels of each.
            "mm_processor_cache_gb": 0,
        }
    else:
        # It gets token ids.
        args["skip_tokenizer_init"] = True
    return common_args(settings) | args | settings.engine_args


def _adapter_args(variant: Variant, dtype: str) -> dict[str, Any]:
    from vllm.config.lora import MaxLoRARanks
    from vllm.platforms import current_platform

    if dtype == "float32" and not current_platform.is_cpu():
        raise CheckpointError(
            f"{variant.path} is a shared variant, whose kernels take no float32 on a GPU. Set "
            "WORKER_DTYPE=bfloat16 (or float16), or serve merged variants."
        )
    ranks = get_args(MaxLoRARanks)
    if variant.rank > max(ranks):
        raise CheckpointError(
            f"{variant.path} has adapters of rank {variant.rank}, vLLM takes at most {max(ranks)}; "
            "serve merged variants"
        )
    rank = min(rank for rank in ranks if rank >= variant.rank)
    return {"enable_lora": True, "max_loras": len(variant.adapters), "max_lora_rank": rank}


def cross_encoder_args(folder: Path, max_tokens: int, settings: WorkerSettings) -> dict[str, Any]:
    args = {
        "model": str(folder),
        # It gets token ids. vLLM's tokenizer would read the published config and ask for its remote code.
        "skip_tokenizer_init": True,
        "dtype": settings.dtype,
        "max_model_len": max_tokens,
        # Attention is bidirectional, so a pair must not be split into steps, and a step has to hold the
        # longest.
        "max_num_batched_tokens": max(settings.batch_tokens, max_tokens),
        "enable_chunked_prefill": False,
    }
    return common_args(settings) | args | settings.engine_args


def common_args(settings: WorkerSettings) -> dict[str, Any]:
    from vllm.platforms import current_platform
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    eager = settings.enforce_eager
    args: dict[str, Any] = {
        "runner": "pooling",
        "quantization": settings.quantization,
        "tensor_parallel_size": settings.tensor_parallel,
        "max_num_batched_tokens": settings.batch_tokens,
        "max_num_seqs": settings.batch_items,
        "scheduling_policy": "priority",
        # A mean would miss the tokens of a cached prefix, and the vector would be silently wrong.
        "enable_prefix_caching": False,
        "enforce_eager": current_platform.is_cpu() if eager is None else eager,
        "disable_log_stats": True,
    }
    if current_platform.is_cpu() and settings.tensor_parallel == 1:
        # By default vLLM runs a CPU model in a second process, and both spin for a second after each step.
        # Engines that share cores would take them from each other.
        args["distributed_executor_backend"] = UniProcExecutor
    if settings.gpu_memory_utilization is not None:
        args["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if settings.kv_cache_gib is not None:
        args["kv_cache_memory_bytes"] = int(settings.kv_cache_gib * 2**30)
        if settings.gpu_memory_utilization is None and not current_platform.is_cpu():
            # vLLM does not use this share if the cache size is given, but requires so much memory to be free
            # before it loads the weights: 90 % by default, which several engines on a GPU never find.
            args["gpu_memory_utilization"] = _MINIMAL_UTILIZATION
    return args


def context_of(variant: Variant, settings: WorkerSettings) -> int:
    """The longest input in tokens: `WORKER_MAX_TOKENS`, at most the model's and the config's less one."""
    longest = min(settings.max_tokens, variant.family.positions)
    return min(longest, variant.positions - 1) if variant.positions else longest


def dtype_of(variant: Variant, settings: WorkerSettings) -> str:
    """The engine's dtype. vLLM's own "auto" would turn a float32 checkpoint into float16."""
    return variant.dtype if settings.dtype == "auto" else settings.dtype


def tolerance_of(dtype: str, quantization: str | None) -> float:
    """How far rounding may move a vector, relative to its length.

    Rounding depends on the other inputs of an engine step. Measured: less than 1e-5 in float32 on a CPU; 0.02
    (cosine 0.9998) between bfloat16 and float32.
    """
    if quantization is not None:
        return 0.1
    return 0.005 if dtype == "float32" else 0.05
