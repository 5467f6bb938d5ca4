"""Tiny random cross-encoders of two families, and what transformers makes of them."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

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


def _write(folder: Path, model: PreTrainedModel, pair: str) -> Score:
    """Write a random cross-encoder to `folder`; returns what it gives for a pair, by transformers."""
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
    tokenizer.enable_truncation(CONTEXT, strategy="only_second")

    def score(query: str, document: str) -> float:
        encoding = tokenizer.encode(query, document)
        with torch.inference_mode():
            inputs = {"input_ids": torch.tensor([encoding.ids])}
            if max(encoding.type_ids):
                inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
            return float(torch.sigmoid(model(**inputs).logits[0, 0]))

    return score


def _random_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Larger than those a model is made with, so that scores differ clearly."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def write_xlm_roberta(folder: Path) -> Score:
    """RoBERTa's positions begin behind the padding token's, and it has one kind of token."""
    config = XLMRobertaConfig(**SIZES, max_position_embeddings=CONTEXT + 2, type_vocab_size=1)
    model = _random_weights(XLMRobertaForSequenceClassification(config))
    return _write(folder, model, "<s> $A </s> </s> $B </s>")


def write_bert(folder: Path) -> Score:
    """BERT tells query and document apart by their kinds of token."""
    config = BertConfig(**SIZES, max_position_embeddings=CONTEXT)
    model = _random_weights(BertForSequenceClassification(config))
    return _write(folder, model, "<s>:0 $A:0 </s>:0 $B:1 </s>:1")
