"""Writes the small files of a variant: everything that vLLM reads except the weights."""

import shutil
from pathlib import Path
from typing import Any

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json, write_json

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


def write_small_files(source: Path, target: Path, dtype: str, projector: int, *, tied: bool) -> None:
    """Write config, processor config and tokenizer of a variant.

    `dtype` is the weights' dtype, `projector` the length of a token vector. `tied` is true if the weights
    have no `lm_head`, because the token embeddings are also the output head.
    """
    config = _without(load_json(source / layout.CONFIG), _DROPPED)
    for part in ("text_config", "vision_config"):
        if isinstance(config.get(part), dict):
            config[part] = _without(config[part], _DROPPED)
    config |= {
        "architectures": [layout.ARCHITECTURE],
        "model_type": layout.MODEL_TYPE,
        "multi_vector_projector_dim": projector,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
    }
    write_json(target / layout.CONFIG, config)

    processor = _without(load_json(source / layout.PREPROCESSOR), ("auto_map", "size"))
    processor |= {
        "min_pixels": layout.MIN_PIXELS,
        "max_pixels": layout.MAX_PIXELS,
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    write_json(target / layout.PREPROCESSOR, processor)

    tokenizer = _without(load_json(source / layout.TOKENIZER_CONFIG), ("auto_map",))
    if "processor_class" in tokenizer:
        tokenizer["processor_class"] = "Qwen2_5_VLProcessor"
    write_json(target / layout.TOKENIZER_CONFIG, tokenizer)
    for name in layout.TOKENIZER_FILES:
        if name != layout.TOKENIZER_CONFIG and (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _without(config: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}
