"""For tests that import locust, which makes sockets and clocks cooperative in the whole process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]


def apart(test: Callable[[], None]) -> Callable[[], None]:
    """Have `test`, which takes no fixtures, run in a process of its own."""

    def run() -> None:
        program = f"import locust; from {test.__module__} import {test.__name__} as its; its.test()"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run.test = test  # type: ignore[attr-defined]
    return run
