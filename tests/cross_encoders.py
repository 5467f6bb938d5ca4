"""Tiny random cross-encoders of two families, and their scores in transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

# The models are so small that more threads only wait for each other.
torch.set_num_threads(1)

Score = Callable[[str, str], float]
TEXTS = ["The river begins in the mountains.", "A recipe for bread.", "Rivers of the north, to the sea."]

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "num_labels": 1,
    "pad_token_id": 1,
}
CONTEXT = 96
# Half of the document's room in the smallest window, with four special tokens.
OVERLAP = 22
ARCHITECTURE = "XLMRobertaForSequenceClassification"
# transformers' names -> those of jinaai/jina-reranker-v2-base-multilingual, replaced in this order.
PUBLISHED_NAMES = {
    "embeddings.LayerNorm": "emb_ln",
    "encoder.layer.": "encoder.layers.",
    "attention.output.dense": "mixer.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


def _write(folder: Path, model: PreTrainedModel, pair: str) -> Score:
    """Write a random cross-encoder to `folder`; returns its score function in transformers."""
    # Large weights, so that scores differ clearly.
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", pair, ends)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", **roles
    ).save_pretrained(folder)
    model.eval().save_pretrained(folder)
    special = tokenizer.num_special_tokens_to_add(is_pair=True)

    def score(query: str, document: str) -> float:
        """The best score of all windows, built by hand."""
        asked, read = (tokenizer.encode(text, add_special_tokens=False).ids for text in (query, document))
        asked = asked[: CONTEXT // 2]
        room = CONTEXT - special - len(asked)
        starts = range(0, max(1, len(read) - OVERLAP), room - OVERLAP)
        return max(_score_window(model, asked, read[start : start + room]) for start in starts)

    return score


def _score_window(model: PreTrainedModel, query: list[int], document: list[int]) -> float:
    start, end = SPECIAL.index("<s>"), SPECIAL.index("</s>")
    is_bert = isinstance(model, BertForSequenceClassification)
    first = [start, *query, end] if is_bert else [start, *query, end, end]
    second = [*document, end]
    inputs = {"input_ids": torch.tensor([first + second])}
    if is_bert:
        inputs["token_type_ids"] = torch.tensor([[0] * len(first) + [1] * len(second)])
    with torch.inference_mode():
        return float(torch.sigmoid(model(**inputs).logits[0, 0]))


def write_published(folder: Path) -> Score:
    """The layout of jinaai/jina-reranker-v2-base-multilingual: config and names of its remote code.

    XLM-RoBERTa: its positions begin after the padding token's, and it has one token type.
    """
    positions = CONTEXT + 2
    config = XLMRobertaConfig(
        **SIZES, max_position_embeddings=positions, type_vocab_size=1, layer_norm_eps=1e-5
    )
    score = _write(folder, XLMRobertaForSequenceClassification(config), "<s> $A </s> </s> $B </s>")
    (folder / "config.json").write_text(json.dumps(published_config()))
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if ".self.query." in name]:
        parts = [weights.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        weights[name.replace("attention.self.query", "mixer.Wqkv")] = torch.cat(parts)
    for ours, published in PUBLISHED_NAMES.items():
        weights = {name.replace(ours, published): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors")
    return score


def published_config() -> dict[str, Any]:
    """The published config.json with tiny sizes: no model_type, and an auto_map."""
    code = "jinaai/jina-reranker-v2-base-multilingual--"
    return {key: value for key, value in SIZES.items() if key != "num_labels"} | {
        "architectures": [ARCHITECTURE],
        "auto_map": {
            "AutoConfig": f"{code}configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": f"{code}modeling_xlm_roberta.XLMRobertaModel",
            "AutoModelForSequenceClassification": f"{code}modeling_xlm_roberta.{ARCHITECTURE}",
        },
        "bos_token_id": 0,
        "eos_token_id": 2,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": CONTEXT + 2,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": 1,
        "use_flash_attn": False,
    }


def write_bert(folder: Path) -> Score:
    """BERT, which has token types for query and document."""
    config = BertConfig(**SIZES, max_position_embeddings=CONTEXT)
    return _write(folder, BertForSequenceClassification(config), "<s>:0 $A:0 </s>:0 $B:1 </s>:1")
