"""The vLLM plugin; vLLM loads it in each of its processes (entry point `vllm.general_plugins`)."""

import ctypes
import multiprocessing
import os
import signal
import sys

from workers.checkpoints.layout import ARCHITECTURE
from workers.plugin import add_batch, engine_steps
from workers.shared.logs import configure_in_engine

# Environment variable set by the worker; without it, vLLM in the same environment stays unchanged.
DIE_WITH_WORKER = "TRIPTYCH_DIE_WITH_WORKER"

_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Register the model with vLLM, and patch the engine. vLLM calls this once in each process.

    vLLM does not call it again in a forked process, so `workers.vllm_engine` makes vLLM spawn its processes.
    """
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # By name: importing the model would initialize CUDA in processes that must not do so.
        ModelRegistry.register_model(ARCHITECTURE, "workers.plugin.model:TriptychEmbeddings")
    if multiprocessing.parent_process() is not None and DIE_WITH_WORKER in os.environ:
        die_with_parent()
        configure_in_engine()
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.engine.core import EngineCore

        add_batch.install(EngineCore)
        engine_steps.install(Scheduler)


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends.

    Otherwise the engine of a worker killed with -9 would keep the GPU.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
