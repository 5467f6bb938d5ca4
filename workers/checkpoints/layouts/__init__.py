"""The checkpoint layouts, one module each. `Family.layout` names the module."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints.layout import VARIANT
from triptych.workers.checkpoints.layouts import v3, v4, v5
from triptych.workers.checkpoints.layouts.unmerged import Kind, Layout
from triptych.workers.shared.families import FAMILIES, Family

LAYOUTS: Mapping[str, Layout] = {"v4": v4, "v5": v5, "v3": v3}
MERGED = tuple(family for family in FAMILIES if family.layout in LAYOUTS)
"""The families whose variants are merged from a base and adapters."""


def layout_of(family: Family) -> Layout:
    """The layout of one of `MERGED`."""
    return LAYOUTS[family.layout or ""]


def recognize(folder: Path, config: dict[str, Any], names: Container[str]) -> tuple[Family, Kind, str] | None:
    """The family of a folder without `variant.json`, what the folder is, and why it cannot be served.

    `names` are those of its tensors. None for a model of no family.
    """
    for family in MERGED:
        if family.architecture in config.get("architectures", []):
            return family, "incomplete", f"has no {VARIANT}; merge again"
        if found := layout_of(family).kind(family, folder, config, names):
            return family, *found
    return None
