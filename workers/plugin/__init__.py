"""The vLLM plugin: found through the `vllm.general_plugins` entry point in each of vLLM's processes."""

import multiprocessing
import os

from workers.checkpoints.layout import ARCHITECTURE
from workers.plugin import batches, steps
from workers.shared.logs import configure_in_engine
from workers.shared.parent_death import die_with_parent

# Set by the worker, so that stock vLLM in the same environment is left as it is.
DIE_WITH_WORKER = "TRIPTYCH_DIE_WITH_WORKER"


def register() -> None:
    """Make the architecture known to vLLM; called once in each process before models are looked up.

    vLLM does not call it again in a process that was forked after the first call, so `workers.llm` has it
    spawn its processes.
    """
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # By name: importing the model here would initialise CUDA in processes that must not.
        ModelRegistry.register_model(ARCHITECTURE, "workers.plugin.model:TriptychEmbeddings")
    if multiprocessing.parent_process() is not None and DIE_WITH_WORKER in os.environ:
        # A worker killed with -9 cannot stop its engine, which would keep the GPU.
        die_with_parent()
        configure_in_engine()
        batches.install()
        steps.install()
