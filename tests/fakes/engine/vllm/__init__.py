"""A stand-in for vLLM that starts at once. A worker with this folder on its PYTHONPATH imports it instead.

It has what `triptych.workers` uses of vLLM. Its vectors are random, with the weights and the tokens as seed.
"""

import json
import os
import sys
import zlib
from collections.abc import AsyncIterator
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
    """Returns a vector, or with `multivector` one for each token; all have length 1."""

    errored = False
    # The worker calls `encode` while this is None.
    output_handler = None

    def __init__(self, model: str, dtype: str, hf_overrides: dict[str, Any], **_: object) -> None:
        weights = [path.read_bytes() for path in sorted(Path(model).glob("*.safetensors"))]
        self._seed = zlib.crc32(b"".join(weights))
        self._dimensions: int = json.loads((Path(model) / CONFIG).read_text())["hidden_size"]
        self._token_dimensions: int = hf_overrides["multi_vector_dimensions"]
        self._steps = StepCounter(os.environ[STEPS_FILE])
        self.model_config = SimpleNamespace(dtype=f"torch.{dtype}")

    @classmethod
    def from_engine_args(cls, args: dict[str, Any]) -> "AsyncLLM":
        return cls(**args)

    async def encode(
        self, engine_input: dict[str, Any], params: PoolingParams, request_id: str, priority: int
    ) -> AsyncIterator[Any]:
        tokens = engine_input["prompt_token_ids"]
        shape = (len(tokens), self._token_dimensions) if params.spec.multivector else (self._dimensions,)
        vector = np.random.default_rng([self._seed, *tokens]).standard_normal(shape, np.float32)
        vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
        self._steps.add()
        yield SimpleNamespace(prompt_token_ids=tokens, outputs=SimpleNamespace(data=_Tensor(vector)))

    def shutdown(self, timeout: float) -> None: ...


class _Tensor:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def numpy(self) -> np.ndarray:
        return self._array


for _name, _content in {
    "vllm.config": {"PoolerConfig": SimpleNamespace},
    "vllm.engine.arg_utils": {"AsyncEngineArgs": dict},
    "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: True)},
    "vllm.v1.engine": {"EngineCoreRequest": None},
    "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
    "vllm.v1.executor.uniproc_executor": {"UniProcExecutor": None},
}.items():
    sys.modules[_name] = ModuleType(_name)
    vars(sys.modules[_name]).update(_content)
