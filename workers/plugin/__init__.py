"""The vLLM plugin; vLLM loads it in each of its processes (entry point `vllm.general_plugins`)."""

import functools
import multiprocessing
import os
from typing import Any

import msgspec

from triptych.workers.plugin import engine_steps
from triptych.workers.shared.logs import configure_in_engine
from triptych.workers.shared.parent_death import die_with_parent

# Environment variable set by the worker; without it, vLLM in the same environment stays unchanged.
DIE_WITH_WORKER = "TRIPTYCH_DIE_WITH_WORKER"

MODELS = {
    "TriptychEmbeddings": "triptych.workers.plugin.image_models:TriptychEmbeddings",
    "TriptychQwen3": "triptych.workers.plugin.text_models:TriptychQwen3",
    "TriptychEuroBert": "triptych.workers.plugin.text_models:TriptychEuroBert",
    "TriptychRanker": "triptych.workers.plugin.image_models:TriptychRanker",
    "TriptychXlmRoberta": "triptych.workers.plugin.text_models:TriptychXlmRoberta",
}
"""`Family.architecture` -> the model's class, by name: importing it would initialize CUDA."""

ADD_BATCH = "add_triptych_batch"
"""Engine method that takes many requests in one message, for `EngineCoreClient.call_utility_async`."""


def register() -> None:
    """Register the models with vLLM, and patch the engine. vLLM calls this once in each process.

    vLLM does not call it again in a forked process, so `workers/vllm_engine.py` makes it spawn processes.
    """
    from vllm import ModelRegistry

    for architecture in MODELS.keys() - ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(architecture, MODELS[architecture])
    if multiprocessing.parent_process() is not None and DIE_WITH_WORKER in os.environ:
        # A worker killed with -9 cannot stop its engine, which would keep the GPU.
        die_with_parent()
        configure_in_engine()
        from vllm.model_executor.models.interfaces import supports_mrope
        from vllm.platforms import current_platform
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.engine.core import EngineCore
        from vllm.v1.worker import gpu_model_runner

        # vLLM's own message holds one request. The engine would start a step with the first one while the
        # rest of the batch is still on its way, and a step for one item costs a third of a step for 32.
        setattr(EngineCore, ADD_BATCH, add_batch)
        # vLLM asks this of its model for each request. On Python 3.11 the answer takes a tenth of a step for
        # short texts.
        setattr(gpu_model_runner, supports_mrope.__name__, functools.cache(supports_mrope))
        engine_steps.install(Scheduler)
        if current_platform.is_cpu():
            from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

            from triptych.workers.plugin import cpu_adapters

            cpu_adapters.install(PunicaWrapperCPU)


# `object`, because vLLM inspects the annotation and fails on a generic type.
def add_batch(engine: Any, batch: object) -> None:
    """Add each request of a batch, a msgpack-decoded list of `EngineCoreRequest`, to vLLM's engine."""
    from vllm.v1.engine import EngineCoreRequest

    for request in msgspec.convert(batch, list[EngineCoreRequest]):
        engine.add_request(*engine.preprocess_add_request(request))
