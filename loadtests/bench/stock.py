"""A variant for stock vLLM: the official layout without the projector, which vLLM does not know."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from triptych.workers.checkpoints import layout


def stock_copy(variant: Path, folder: Path) -> Path:
    """Write `variant` to `folder` for `Qwen2_5_VLForConditionalGeneration`; returns the folder.

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
            architectures = {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}
            copy.write_text(json.dumps(json.loads(path.read_text()) | architectures, indent=2))
        elif path.name != layout.VARIANT:
            shutil.copy(path, copy)
    return folder


def _without_projector(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.startswith(layout.PROJECTOR)}
