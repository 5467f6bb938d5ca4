"""A stand-in for vLLM that starts at once. A worker with this folder on its PYTHONPATH imports it instead.

It has what `triptych.workers` uses of vLLM. Its vectors are random, with the weights and the tokens as seed.
By default a step takes no time. `EMULATED_STEP_SECONDS` and `EMULATED_TOKENS_PER_SECOND` make it take as long
as on a card: a fixed time, and a time for each token.
"""

import asyncio
import heapq
import itertools
import json
import os
import sys
import time
import zlib
from array import array
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from triptych.workers.checkpoints.layout import CONFIG
from triptych.workers.plugin.engine_steps import STEPS_FILE, StepCounter
from triptych.workers.plugin.pooling_spec import PoolingSpec


class PoolingParams:
    """Keeps what the worker asks of the pooler."""

    def __init__(self, task: str, extra_kwargs: dict[str, Any] | None) -> None:
        self.spec = PoolingSpec.from_kwargs(extra_kwargs)

    def verify(self, model_config: object) -> None: ...


class AsyncLLM:
    """Returns a vector, or with `multivector` one for each token; all have length 1.

    It runs steps one after another in the worker's process, and schedules them like vLLM: by priority, up to
    the limits of a step, with long inputs in chunks.
    """

    errored = False

    def __init__(
        self,
        model: str,
        dtype: str,
        hf_overrides: dict[str, Any],
        max_num_batched_tokens: int,
        max_num_seqs: int,
        **_: object,
    ) -> None:
        weights = [path.read_bytes() for path in sorted(Path(model).glob("*.safetensors"))]
        self._seed = zlib.crc32(b"".join(weights))
        self._dimensions: int = json.loads((Path(model) / CONFIG).read_text())["hidden_size"]
        self._token_dimensions: int = hf_overrides["multi_vector_dimensions"]
        self._max_tokens, self._max_items = max_num_batched_tokens, max_num_seqs
        self._fixed = float(os.environ.get("EMULATED_STEP_SECONDS", 0))
        self._rate = float(os.environ.get("EMULATED_TOKENS_PER_SECOND", "inf"))
        self._steps = StepCounter(os.environ[STEPS_FILE])
        self._order = itertools.count()
        # Priority, order of arrival, tokens left, request.
        self._waiting: list[tuple[int, int, int, Any]] = []
        self._answers: dict[str, Any] = {}
        self._running: asyncio.Task[None] | None = None
        self.model_config = SimpleNamespace(dtype=f"torch.{dtype}")
        # The parts of vLLM's engine that the worker calls, and not None, so that it calls them.
        self.output_processor = self.engine_core = self.output_handler = self

    @classmethod
    def from_engine_args(cls, args: dict[str, Any]) -> "AsyncLLM":
        return cls(**args)

    async def encode(
        self, engine_input: Any, params: PoolingParams, request_id: str, lora_request: None, priority: int
    ) -> AsyncIterator[Any]:
        answer = asyncio.get_running_loop().create_future()
        tokens = engine_input["prompt_token_ids"]
        request = SimpleNamespace(
            request_id=request_id, prompt_token_ids=tokens, pooling_params=params, priority=priority
        )
        self.add_request(request, None, None, 0, SimpleNamespace(put=answer.set_result))
        await self.add_request_async(request)
        yield await answer

    def add_request(self, request: Any, prompt: None, parent: None, index: int, answer: Any) -> None:
        self._answers[request.request_id] = answer

    async def add_request_async(self, request: Any) -> None:
        await self.call_utility_async("", [request])

    async def call_utility_async(self, name: str, requests: Sequence[Any]) -> None:
        for request in requests:
            tokens = len(request.prompt_token_ids)
            heapq.heappush(self._waiting, (request.priority, next(self._order), tokens, request))
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def abort(self, request_id: str | Sequence[str], internal: bool) -> None:
        for name in [request_id] if isinstance(request_id, str) else request_id:
            self._answers.pop(name, None)

    def shutdown(self, timeout: float) -> None: ...

    async def _run(self) -> None:
        # A card does not wait for a busy event loop: while requests wait, the next step begins when the last
        # one ends.
        free_at = time.monotonic()
        while self._waiting:
            done, tokens = self._schedule()
            free_at += self._fixed + tokens / self._rate
            await asyncio.sleep(free_at - time.monotonic())
            self._steps.add()
            for request in done:
                if (answer := self._answers.pop(request.request_id, None)) is not None:
                    answer.put(self._output(request))
        self._running = None

    def _schedule(self) -> tuple[list[Any], int]:
        """Requests that the next step finishes, and its tokens."""
        done: list[Any] = []
        room = self._max_tokens
        while self._waiting and room and len(done) < self._max_items:
            priority, order, left, request = heapq.heappop(self._waiting)
            if request.request_id not in self._answers:
                continue
            taken = min(left, room)
            room -= taken
            if taken < left:
                heapq.heappush(self._waiting, (priority, order, left - taken, request))
            else:
                done.append(request)
        return done, self._max_tokens - room

    def _output(self, request: Any) -> Any:
        tokens, multivector = request.prompt_token_ids, request.pooling_params.spec.multivector
        shape = (len(tokens), self._token_dimensions) if multivector else (self._dimensions,)
        seed = zlib.crc32(array("q", tokens), self._seed)
        vector = np.random.default_rng(seed).standard_normal(shape, np.float32)
        vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
        data = SimpleNamespace(numpy=lambda: vector)
        return SimpleNamespace(prompt_token_ids=tokens, outputs=SimpleNamespace(data=data))


for _name, _content in {
    "vllm.config": {"PoolerConfig": SimpleNamespace},
    "vllm.engine.arg_utils": {"AsyncEngineArgs": dict},
    "vllm.lora.request": {"LoRARequest": None},
    "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: True)},
    "vllm.v1.engine": {"EngineCoreRequest": SimpleNamespace},
    "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
    "vllm.v1.executor.uniproc_executor": {"UniProcExecutor": None},
}.items():
    sys.modules[_name] = ModuleType(_name)
    vars(sys.modules[_name]).update(_content)
