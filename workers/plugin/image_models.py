"""The models that read images: vLLM's Qwen2.5-VL with our pooler instead of a head, and its ranker."""

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.jina_vl import JinaVLForSequenceClassification
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from triptych.workers.checkpoints.layout import PROJECTOR, PROJECTORS
from triptych.workers.plugin.pooler import MERGED, Pooled


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor,
    info=Qwen2_5_VLProcessingInfo,
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class TriptychEmbeddings(Pooled, Qwen2_5_VLForConditionalGeneration):
    """jina-embeddings-v4, merged or shared. `multi_vector_dimensions` is 0 without a projector."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            **Qwen2_5_VLForConditionalGeneration.hf_to_vllm_mapper.orig_to_new_prefix,
            f"{PROJECTOR}.": f"pooler.projectors.{MERGED}.",
            f"{PROJECTORS}.": "pooler.projectors.",
        }
    )

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[Any]
    ) -> tuple[torch.Tensor, int]:
        """Positions [3, tokens] of one prompt, and the difference between their count and the tokens'.

        For a text all three rows are 0, 1, 2, ... vLLM's general method takes longer to find that than all
        its other work for a short text before the forward pass.
        """
        if mm_features:
            return super().get_mrope_input_positions(input_tokens, mm_features)
        return torch.arange(len(input_tokens)).expand(3, -1), 0


# vLLM's processor for this model reverses the images; before 0.32 it leaves the order of their hashes.
@MULTIMODAL_REGISTRY.register_processor(
    Qwen2VLMultiModalProcessor, info=Qwen2VLProcessingInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class TriptychRanker(JinaVLForSequenceClassification):
    """jina-reranker-m0."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        text = vllm_config.model_config.hf_config.get_text_config()
        text.num_labels = 1
        # Tied, the output head, which scores do not need, takes no memory.
        text.tie_word_embeddings = True
        super().__init__(vllm_config=vllm_config, prefix=prefix)
