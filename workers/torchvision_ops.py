"""Lets torchvision be imported beside a torch that its compiled ops do not match.

PyPI's torchvision is built for CUDA. Beside a CPU torch its C++ ops do not load, and `import torchvision`
then fails with "operator torchvision::nms does not exist", because it describes two ops that nobody has
declared. vLLM imports torchvision but calls neither op, so declaring them is enough.

Every process needs this, also those that import vllm before any plugin of ours. So `deploy/install.py` puts
a `.pth` file into the environment that calls `install()` when the interpreter starts: keep this module cheap.
"""

import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A library's declarations end with the object that made them.
_libraries: list[object] = []


def install() -> None:
    """Have the ops declared when torchvision comes to need them; imports nothing until then."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds no module: it is asked just before the one that describes the ops is loaded."""

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
