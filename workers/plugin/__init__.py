"""The vLLM plugin: found through the `vllm.general_plugins` entry point in each of vLLM's processes."""

import ctypes
import multiprocessing
import os
import signal
import sys

from workers.checkpoints.layout import ARCHITECTURE
from workers.plugin import batches, steps
from workers.shared.logs import configure_in_engine

# Set by the worker, so that stock vLLM in the same environment is left as it is.
DIE_WITH_WORKER = "TRIPTYCH_DIE_WITH_WORKER"

_PR_SET_PDEATHSIG = 1


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
        die_with_parent()
        configure_in_engine()
        batches.install()
        steps.install()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    A worker killed with -9 cannot stop its engine; without this the engine would keep the GPU.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
