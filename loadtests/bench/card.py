"""The GPU, by nvidia-smi."""

import os
import shutil
import subprocess


def name() -> str | None:
    """Name, memory and driver of the GPU; None without one."""
    return _query("name,memory.total,driver_version")


def used_gib() -> float:
    """Memory in use on the GPU, by all processes; 0 without a GPU."""
    return float(_query("memory.used") or 0) / 1024


def _query(fields: str) -> str | None:
    """Values of the first GPU that processes started here see."""
    if shutil.which("nvidia-smi") is None:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", f"--id={first}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
