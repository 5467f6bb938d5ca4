"""The models that read only text: vLLM's backbones with our pooler instead of a head."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.bert_with_rope import BertWithRope, JinaRobertaModel
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from triptych.workers.plugin.pooler import Pooled, SpanPooler


class TriptychQwen3(Pooled, Qwen3ForCausalLM):
    """jina-embeddings-v5-text-small."""


class TriptychEuroBert(Pooled, LlamaForCausalLM):
    """jina-embeddings-v5-text-nano. With `is_causal: false` in the config, vLLM's Llama looks both ways."""


class _RotaryXlmRoberta(BertWithRope):
    """vLLM's model for jina-embeddings-v3, without its merge of adapters at load."""

    hf_to_vllm_mapper = JinaRobertaModel.hf_to_vllm_mapper


class TriptychXlmRoberta(nn.Module):
    """jina-embeddings-v3."""

    is_pooling_model: ClassVar[bool] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        config.rotary_kwargs = {
            "head_size": config.hidden_size // config.num_attention_heads,
            # A multiple of 8: compiled kernels read the table of positions in blocks.
            "max_position": -(-config.max_position_embeddings // 8) * 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_emb_base},
        }
        self.roberta = _RotaryXlmRoberta(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "roberta"))
        self.pooler = SpanPooler.of(vllm_config)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.roberta.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        states: torch.Tensor = self.roberta(input_ids, positions, intermediate_tensors, inputs_embeds)
        return states

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loaded = self.roberta.load_weights(
            (name.removeprefix("roberta."), weight) for name, weight in weights
        )
        return {f"roberta.{name}" for name in loaded}
