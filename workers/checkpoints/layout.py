"""Names of files that all checkpoints have in common. Each layout's own names are in `layouts/`."""

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "added_tokens.json",
    "special_tokens_map.json",
    "merges.txt",
    "vocab.json",
)
VARIANT = "variant.json"

PROJECTOR = "multi_vector_projector"
"""The module that makes multi-vectors, in a model that has them."""

PROJECTORS = "multi_vector_projectors"
"""The same in a shared variant, which has one for each adapter."""

MIN_PIXELS = 3136
MAX_PIXELS = 602_112
"""Bounds of the model's own image processor: at most 768 image tokens."""


class CheckpointError(ValueError):
    """A folder cannot be used as asked. The message says why and what to do."""
