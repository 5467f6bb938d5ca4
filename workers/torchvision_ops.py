"""Makes PyPI's torchvision, which is built for CUDA, importable beside a CPU torch.

Its C++ ops do not load there, and `import torchvision` fails with "operator torchvision::nms does not exist".
vLLM imports torchvision but calls neither of the two missing ops, so declaring them is enough.

Processes that import vllm before our plugin need this too. So `deploy/install.py` writes a `.pth` file that
calls `install()` at every start of the interpreter: keep this module cheap to import.

Uses the private `torchvision._meta_registrations` and `torchvision.extension._has_ops` (torchvision 0.28).
"""

import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Declarations are undone when their library object is deleted.
_libraries: list[object] = []


def install() -> None:
    """Declare the ops when torchvision is imported; imports nothing before that."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds no modules. It is called just before torchvision needs the ops."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision._meta_registrations":
            sys.meta_path.remove(self)
            if not sys.modules["torchvision.extension"]._has_ops():
                _declare()


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for op in ("nms", "qnms"):
        library.define(op + _SCHEMA)
    _libraries.append(library)
