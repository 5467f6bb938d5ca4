"""The GPU, by nvidia-smi."""

import os
import shutil
import subprocess


def name() -> str | None:
    """Name, memory and driver of the GPU; None without one."""
    return _query("name,memory.total,driver_version")


def used_gib() -> float | None:
    """Memory in use on the GPU, by all processes; None without a GPU."""
    used = _query("memory.used")
    return float(used) / 1024 if used else None


def _query(fields: str) -> str | None:
    """Values of the first GPU that processes started here see."""
    if shutil.which("nvidia-smi") is None:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--id={first}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
