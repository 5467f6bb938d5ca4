"""The tokenizer of tiny checkpoints: byte-level BPE as in Qwen2, trained on `corpus.txt`."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from workers.checkpoints import layout
from workers.checkpoints.writing import write_json

# A little text in many languages, and some code.
CORPUS = Path(__file__).with_name("corpus.txt")
VOCABULARY = 3072
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of Qwen2.5-VL's ids, which follow all other ids."""

# How Qwen2 splits text before it merges bytes (from its published tokenizer.json).
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer. Deterministic; at most `VOCABULARY` tokens, special tokens included."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.train_from_iterator(
        [CORPUS.read_text(encoding="utf-8")],
        BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            # Otherwise whole sentences of languages without spaces become tokens.
            max_token_length=12,
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that transformers expects of a Qwen2 tokenizer."""
    tokenizer.save(str(folder / layout.TOKENIZER))
    tokenizer.model.save(str(folder))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    write_json(folder / "added_tokens.json", ids)
    additional = [token for token in SPECIAL_TOKENS if token not in ("<|endoftext|>", "<|im_end|>")]
    roles = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": additional,
    }
    write_json(folder / "special_tokens_map.json", roles)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config: dict[str, Any] = {
        **roles,
        "added_tokens_decoder": {str(ids[token]): {"content": token, **flags} for token in SPECIAL_TOKENS},
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 131072,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / layout.TOKENIZER_CONFIG, config)
