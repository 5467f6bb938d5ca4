"""Reads and changes files of a checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
UPSTREAM = Path(__file__).parents[2] / "data" / "upstream-tiny"


def weights(folder: Path) -> Tensors:
    """All tensors in the files of a folder."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def edit_json(file: Path, **values: Any) -> None:
    """Set `values` in a JSON object."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_tensors(file: Path, edit: Callable[[Tensors], object]) -> None:
    """Write the tensors of a file again after `edit` has changed them."""
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
