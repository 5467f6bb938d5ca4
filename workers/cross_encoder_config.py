"""The config.json of a cross-encoder: its context, and a replacement for a config with remote code."""

from pathlib import Path
from typing import Any, NamedTuple

from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, CheckpointError

MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "ModernBertForSequenceClassification": "modernbert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}
"""transformers' `model_type` of the architectures that vLLM 0.32 implements itself (its model registry)."""

_PADDED = ("Roberta", "XLMRoberta", "Camembert")


class CrossEncoderConfig(NamedTuple):
    """`context` is the longest pair in tokens; `rewritten` replaces a config that needs remote code.

    `token_types` is true if the model reads token types. Other models' tokenizers set them too, but
    ModernBERT crashes vLLM's engine if it gets them.
    """

    context: int
    token_types: bool
    rewritten: dict[str, Any] | None = None


def read_config(folder: Path) -> CrossEncoderConfig:
    """Read config.json.

    Raises `CheckpointError` for a model that is not a classifier with one label, or that needs remote code.
    """
    config = load_json(folder / CONFIG)
    architectures = config.get("architectures") or []
    architecture = next((name for name in architectures if name.endswith("ForSequenceClassification")), None)
    if architecture is None:
        raise CheckpointError(f"{folder} holds {architectures}, not a cross-encoder for the rerank pool")
    if len(config.get("id2label") or {0: ""}) != 1 and config.get("num_labels") != 1:
        raise CheckpointError(f"{folder} has several labels; a reranker has one")
    positions = int(config.get("max_position_embeddings", 512))
    padding = config.get("pad_token_id")
    # These models number positions from pad_token_id + 1.
    offset = (1 if padding is None else int(padding)) + 1 if architecture.startswith(_PADDED) else 0
    token_types = architecture == "BertForSequenceClassification"
    return CrossEncoderConfig(positions - offset, token_types, _rewritten(folder, config, architecture))


def _rewritten(folder: Path, config: dict[str, Any], architecture: str) -> dict[str, Any] | None:
    remote = "AutoConfig" in (config.get("auto_map") or {})
    if "model_type" in config and not remote:
        return None
    # Jina's XLM-RoBERTa code also has rotary positions under this architecture; vLLM has only absolute ones.
    if architecture not in MODEL_TYPES or config.get("position_embedding_type") == "rotary":
        reason = "its auto_map names remote code" if remote else "it has no model_type"
        raise CheckpointError(
            f"{folder / CONFIG}: {architecture} cannot be served: {reason}, and remote code is never run. "
            f"Use a cross-encoder of {', '.join(sorted(MODEL_TYPES))} with absolute positions, or one whose "
            "config.json has a model_type of transformers and no auto_map"
        )
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    return kept | {"model_type": MODEL_TYPES[architecture]}
