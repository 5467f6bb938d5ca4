"""Floating-point operations of a token, from a checkpoint's config."""

from collections.abc import Mapping
from typing import Any


def flops_per_token(config: Mapping[str, Any], tokens: int) -> float:
    """Operations of one token in a text of `tokens` tokens: 2 W + 2 L H n.

    W weights are in the matrices of the L text layers, H values in the hidden state, n tokens in the text.
    Embeddings, norms, projector and vision tower are left out.
    Each weight is multiplied and added once. Attention is causal, so a token meets n / 2 others on average.
    For each it multiplies and adds H values with the keys and H with the values: 4 H n / 2 a layer.
    """
    hidden, inner, layers = (
        config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    return float(2 * weights + 2 * layers * hidden * tokens)
