"""The layout of jinaai/jina-reranker-m0: Qwen2-VL with a scoring head, served as it is published.

One file holds Qwen2-VL with the old names (`model.layers.N...`, `visual...`) and the head, two linear layers
`score.0` and `score.2`. Names: `modeling.py` of the repository. Its size, 4.89 GB, includes an output head
that is not tied to the embeddings, which scores do not need.
"""

from collections.abc import Container, Mapping
from pathlib import Path

from triptych.workers.checkpoints.layout import SINGLE
from triptych.workers.checkpoints.layouts.sizes import Config, Shapes, decoder, linear, vision
from triptych.workers.checkpoints.layouts.unmerged import Found
from triptych.workers.shared.families import Family

EMBEDDING = "embed_tokens.weight"
ARCHITECTURE = "JinaVLForRanking"
_HEAD = "score"
_HEAD_NAMES = tuple(f"{_HEAD}.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))


def kind(family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
    if ARCHITECTURE not in (config.get("architectures") or []):
        return None
    lacking = [name for name in _HEAD_NAMES if name not in names]
    if lacking:
        return "incomplete", f"has no {', '.join(lacking)} among its weights; fetch it again"
    return "published", ""


def tiny(family: Family, config: Config) -> Mapping[str, Shapes]:
    return {SINGLE: _tensors(config)}


def _tensors(config: Config) -> Shapes:
    hidden = config["hidden_size"]
    yield from decoder(config)
    yield "lm_head.weight", (config["vocab_size"], hidden)
    tower = config["vision_config"]
    width = tower["embed_dim"]
    inner = width * tower["mlp_ratio"]
    mlp = [("fc1", (inner, width)), ("fc2", (width, inner))]
    yield from vision(tower, width, tower["hidden_size"], mlp, norm_bias=True)
    yield from linear(f"{_HEAD}.0", hidden, hidden)
    yield from linear(f"{_HEAD}.2", 1, hidden)
