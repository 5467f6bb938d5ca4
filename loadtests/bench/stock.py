"""A variant for stock vLLM: the official layout without the projector, which vLLM does not know."""

import json
import shutil
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file

from workers.checkpoints import layout

T = TypeVar("T")


def stock_copy(variant: Path, folder: Path) -> Path:
    """Write `variant` to `folder` for `Qwen2_5_VLForConditionalGeneration`; returns the folder.

    Loads one shard at a time.
    """
    folder.mkdir(parents=True)
    index_path = variant / layout.INDEX
    index = json.loads(index_path.read_text()) if index_path.exists() else None
    for path in variant.iterdir():
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            save_file(_without_projector(tensors), folder / path.name, {"format": "pt"})
        elif path.name not in (layout.INDEX, layout.VARIANT, layout.CONFIG):
            shutil.copy(path, folder / path.name)
    if index is not None:
        index["weight_map"] = _without_projector(index["weight_map"])
        (folder / layout.INDEX).write_text(json.dumps(index))
    config = json.loads((variant / layout.CONFIG).read_text())
    config["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]
    (folder / layout.CONFIG).write_text(json.dumps(config, indent=2))
    return folder


def _without_projector(named: dict[str, T]) -> dict[str, T]:
    return {name: value for name, value in named.items() if not name.startswith(layout.PROJECTOR)}
