"""Where a measurement was made: the machine and the revision."""

import os
import platform
import subprocess
from pathlib import Path


def machine() -> str:
    """The number and model of the processors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def revision() -> str:
    """The commit, marked if the tree has changes."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return described.stdout.strip() or "no git revision"
