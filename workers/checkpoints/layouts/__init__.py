"""The checkpoint layouts, one module each. `Family.layout` names the module."""

from collections.abc import Container, Mapping
from pathlib import Path

from triptych.workers.checkpoints.layout import VARIANT
from triptych.workers.checkpoints.layouts import m0, v3, v4, v5
from triptych.workers.checkpoints.layouts.sizes import Config
from triptych.workers.checkpoints.layouts.unmerged import Kind, Layout, MergedLayout
from triptych.workers.shared.families import FAMILIES, Family

MERGED_LAYOUTS: Mapping[str, MergedLayout] = {"v4": v4, "v5": v5, "v3": v3}
LAYOUTS: Mapping[str, Layout] = {**MERGED_LAYOUTS, "m0": m0}
KNOWN = tuple(family for family in FAMILIES if family.layout in LAYOUTS)
"""The families whose checkpoints are recognized, and can be imitated."""
MERGED = tuple(family for family in KNOWN if family.layout in MERGED_LAYOUTS)
"""Those of them whose variants are merged from a base and adapters."""


def recognize(folder: Path, config: Config, names: Container[str]) -> tuple[Family, Kind, str] | None:
    """The family of a folder without `variant.json`, what the folder is, and why it cannot be served.

    `names` are those of its tensors. None for a model of no family.
    """
    for family in KNOWN:
        if family.architecture in (config.get("architectures") or []):
            return family, "incomplete", f"has no {VARIANT}; merge again"
        if found := LAYOUTS[family.layout].kind(family, folder, config, names):
            return family, *found
    return None
