"""The hook that lets torchvision be imported beside a torch its compiled ops do not match.

In an environment for CPUs the hook is installed, and every test that imports vLLM needs it.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from triptych.workers import torchvision_ops as hook

ROOT = Path(__file__).parents[3]


def test_ops_that_exist_are_not_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setitem(sys.modules, "torchvision.extension", SimpleNamespace(_has_ops=lambda: True))
    monkeypatch.setattr(hook, "_declare", lambda: pytest.fail("declared"))
    before = list(sys.meta_path)
    hook.install()
    [finder] = [finder for finder in sys.meta_path if finder not in before]
    finder.find_spec("torchvision._meta_registrations")
    # Out of the way afterwards.
    assert sys.meta_path == before


def test_hook_imports_nothing_early() -> None:
    code = (
        "import sys, triptych.workers.torchvision_ops as hook; hook.install(); "
        "print({'torch', 'torchvision', 'numpy', 're'} & set(sys.modules) or 'nothing')"
    )
    # -S: without the environment's own .pth files.
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "nothing", done.stdout + done.stderr
