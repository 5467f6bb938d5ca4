"""Texts of a load: unique from their first word, of the right length, in the right language, reproducible."""

import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from triptych.loadtests.content.corpus import LANGUAGES, NAME, Corpus, probe
from triptych.workers.checkpoints.tiny import FILES
from triptych.workers.shared.families import V4

ROOT = Path(__file__).parents[3]
EVERY = dict.fromkeys(LANGUAGES, 1.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FILES / V4.name / "tokenizer.json"))


def texts(corpus: Corpus, count: int, tokens: int) -> list[str]:
    draw = random.Random("a")
    return [corpus.text(draw, serial, tokens) for serial in range(count)]


@pytest.mark.parametrize("tokens", [1, 20])
def test_texts_differ_from_their_first_word(tokens: int) -> None:
    found = texts(Corpus("seed", EVERY), 20_000, tokens)
    assert len({text.removeprefix("# ").split()[0] for text in found}) == 20_000


def test_texts_depend_on_the_seed_alone() -> None:
    one, same, other = (texts(Corpus(seed, EVERY), 200, 30) for seed in "aab")
    assert one == same
    assert not set(one) & set(other)


@pytest.mark.parametrize("language", EVERY)
def test_calibrated_texts_have_their_length(language: str, tokenizer: Tokenizer) -> None:
    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    calibration = {name: count(probe(name, 300)) / 300 for name in (language, NAME)}
    corpus, draw = Corpus("seed", {language: 1}, calibration), random.Random("a")
    for tokens in (40, 200, 1000):
        mean = sum(count(corpus.text(draw, serial, tokens)) for serial in range(200)) / 200
        assert mean == pytest.approx(tokens, rel=0.15)


def test_languages_follow_their_weights() -> None:
    found = texts(Corpus("seed", {"en": 6, "ru": 3, "zh": 1}), 6000, 30)
    scripts = Counter(unicodedata.name(text.rstrip(".。")[-1]).split()[0] for text in found)
    assert scripts["CYRILLIC"] / 6000 == pytest.approx(0.3, abs=0.03)
    assert scripts["LATIN"] / 6000 == pytest.approx(0.6, abs=0.03)
