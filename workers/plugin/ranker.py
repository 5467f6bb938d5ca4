"""The model of jina-reranker-m0: vLLM's own class, with images in the order of the prompt."""

from vllm.config import VllmConfig
from vllm.model_executor.models.jina_vl import JinaVLForSequenceClassification
from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY


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
