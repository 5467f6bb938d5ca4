"""The hook that lets torchvision be imported beside a torch its compiled ops do not match."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# As torchvision does: says whether the compiled ops were loaded, then describes an op that must exist.
EXTENSION = "def _has_ops(): return {has_ops}"
META_REGISTRATIONS = """
import torch.library
if {has_ops}:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold): ...
"""


def torchvision(folder: Path, has_ops: bool) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\nfrom . import extension\nfrom . import _meta_registrations"
    )
    (package / "extension.py").write_text(EXTENSION.format(has_ops=has_ops))
    (package / "_meta_registrations.py").write_text(META_REGISTRATIONS.format(has_ops=has_ops))
    return folder


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    # -S: without the environment's own .pth files, so that only the code under test acts; then its packages.
    search = os.pathsep.join(
        map(str, [*path, ROOT, *(entry for entry in sys.path if "site-packages" in entry)])
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
    )


HOOKED = "import triptych.workers.torchvision_ops as hook; hook.install(); "


WITHOUT = """
try:
    import torchvision
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("has_ops", [False, True], ids=["ops missing", "ops there"])
def test_import_works_with_the_hook(tmp_path: Path, has_ops: bool) -> None:
    check = "import torchvision; import sys; print(len(hook._libraries), sys.meta_path[0].__class__)"
    before = "" if has_ops else WITHOUT
    done = python(before + HOOKED + check, torchvision(tmp_path, has_ops))
    assert done.returncode == 0, done.stderr
    *failure, said = done.stdout.splitlines()
    assert failure == ([] if has_ops else ["operator torchvision::nms does not exist"])
    # Declared only where they are missing, and out of the way afterwards.
    assert said.startswith("0 " if has_ops else "1 ")
    assert "triptych.workers.torchvision_ops" not in said


def test_hook_imports_nothing_early() -> None:
    done = python(
        HOOKED + "import sys; print(*sorted(set(sys.modules) & {'torch', 'torchvision', 'numpy', 're'}))"
    )
    assert done.stdout.strip() == "", done.stdout + done.stderr
