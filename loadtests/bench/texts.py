"""Unique texts of an exact number of tokens."""

import random
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

WORDS = 400
Lists = Callable[[str, int, int, int], list[list[str]]]
"""Draws lists of texts, from a seed, the number of lists, and of texts and tokens in each."""


def texts_of(checkpoint: Path) -> Lists:
    """Texts of a checkpoint's tokens. The same seed gives the same texts."""
    words = single_token_words(Tokenizer.from_file(str(checkpoint / "tokenizer.json")))

    def lists(seed: str, count: int, texts: int, tokens: int) -> list[list[str]]:
        draw = random.Random(seed)
        return [["".join(draw.choices(words, k=tokens)) for _ in range(texts)] for _ in range(count)]

    return lists


def single_token_words(tokenizer: Tokenizer) -> list[str]:
    """Words that are one token each in any sequence."""
    words = [f" {word}" for word in ("the", "of", "and", "a", "in", "to", "is", "be", "on", "an")]
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    words += [tokenizer.decode([number]) for number in sorted(vocabulary.values())]
    single = [word for word in words if word.startswith(" ") and word[1:].isalpha()]
    return [word for word in single if len(tokenizer.encode(word * 3, add_special_tokens=False)) == 3][:WORDS]
