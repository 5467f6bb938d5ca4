"""A variant for stock vLLM: the official layout without the projector, which vLLM does not know."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from triptych.workers.checkpoints import layout
from triptych.workers.shared.families import V4, V5_NANO

STOCK = {V4: "Qwen2_5_VLForConditionalGeneration", V5_NANO: "LlamaModel"}
"""vLLM's own class for the variants of a family."""


def stock_copy(variant: Path, folder: Path, architecture: str = STOCK[V4]) -> Path:
    """Write `variant` to `folder` for vLLM's own class `architecture`; returns the folder.

    Loads one shard at a time.
    """
    folder.mkdir(parents=True)
    for path in variant.iterdir():
        copy = folder / path.name
        if path.suffix == ".safetensors":
            save_file(_without_projector(load_file(path)), copy, {"format": "pt"})
        elif path.name == layout.INDEX:
            index = json.loads(path.read_text())
            copy.write_text(json.dumps(index | {"weight_map": _without_projector(index["weight_map"])}))
        elif path.name == layout.CONFIG:
            architectures = {"architectures": [architecture]}
            copy.write_text(json.dumps(json.loads(path.read_text()) | architectures, indent=2))
        elif path.name != layout.VARIANT:
            shutil.copy(path, copy)
    return folder


def _without_projector(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.startswith(layout.PROJECTOR)}
