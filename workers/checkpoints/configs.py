"""Writes the small files of a variant: everything that vLLM reads except the weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json, write_json
from triptych.workers.checkpoints.layouts import MERGED_LAYOUTS
from triptych.workers.shared.families import Family

# Remote code, the dtype of the source, and settings of upstream's code that vLLM would misread or ignore.
_DROPPED = (
    "auto_map",
    "matryoshka_dims",
    "single_vector_pool_strategy",
    "task_names",
    "truncate_dim",
    "_name_or_path",
    "dtype",
    "torch_dtype",
)


def write_small_files(
    family: Family, source: Path, target: Path, dtype: str, weights: Mapping[str, tuple[int, ...]]
) -> None:
    """Write config, tokenizer and, for a model that reads images, processor config of a variant.

    `dtype` is the weights' dtype, `weights` are their shapes by name.
    """
    original = load_json(source / layout.CONFIG)
    config = _without(original, _DROPPED)
    for part in ("text_config", "vision_config"):
        if isinstance(config.get(part), dict):
            config[part] = _without(config[part], _DROPPED)
    config |= {"architectures": [family.architecture], "torch_dtype": dtype}
    config |= MERGED_LAYOUTS[family.layout].changes(family, original, weights)
    write_json(target / layout.CONFIG, config)

    # Checks it: it is copied below as it is.
    load_json(source / layout.TOKENIZER)
    tokenizer = _without(load_json(source / layout.TOKENIZER_CONFIG), ("auto_map",))
    if family.images:
        processor = _without(load_json(source / layout.PREPROCESSOR), ("auto_map", "size"))
        processor |= {
            "min_pixels": layout.MIN_PIXELS,
            "max_pixels": layout.MAX_PIXELS,
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen2_5_VLProcessor",
        }
        write_json(target / layout.PREPROCESSOR, processor)
        if "processor_class" in tokenizer:
            tokenizer["processor_class"] = "Qwen2_5_VLProcessor"
    write_json(target / layout.TOKENIZER_CONFIG, tokenizer)
    for name in layout.TOKENIZER_FILES:
        if name != layout.TOKENIZER_CONFIG and (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _without(config: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}
