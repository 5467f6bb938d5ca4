"""The models that read only text: vLLM's backbones with our pooler instead of a head."""

from vllm.config import VllmConfig
from vllm.model_executor.models.bert_with_rope import BertWithRope, JinaRobertaModel
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.model_executor.models.utils import WeightsMapper

from triptych.workers.plugin.pooler import Pooled


class TriptychQwen3(Pooled, Qwen3ForCausalLM):
    """jina-embeddings-v5-text-small."""


class TriptychEuroBert(Pooled, LlamaForCausalLM):
    """jina-embeddings-v5-text-nano. With `is_causal: false` in the config, vLLM's Llama looks both ways."""


class TriptychXlmRoberta(Pooled, BertWithRope):  # type: ignore[misc]
    """jina-embeddings-v3, without the merge of adapters at load of vLLM's own class."""

    hf_to_vllm_mapper = JinaRobertaModel.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={"roberta.": ""}
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        config.rotary_kwargs = {
            "head_size": config.hidden_size // config.num_attention_heads,
            # A multiple of 8: compiled kernels read the table of positions in blocks.
            "max_position": -(-config.max_position_embeddings // 8) * 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_emb_base},
        }
        super().__init__(vllm_config=vllm_config, prefix=prefix)
