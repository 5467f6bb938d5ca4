"""Texts of a load: no two alike from their beginning on, of real lengths, the same in every process."""

import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from loadtests.content.corpus import TOKENS_PER_UNIT, Corpus
from workers.checkpoints.tokenizer import build_tokenizer

ROOT = Path(__file__).parents[3]
EVERY = dict.fromkeys(TOKENS_PER_UNIT, 1.0)
SCRIPTS = {
    **{language: {"LATIN"} for language in ("en", "de", "fr", "es", "pt", "code")},
    "ru": {"CYRILLIC"},
    "el": {"GREEK"},
    "ar": {"ARABIC"},
    "hi": {"DEVANAGARI"},
    "ko": {"HANGUL"},
    "zh": {"CJK"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA"},
    "th": {"THAI"},
}
# From below a million, where beginnings have 3 parts, to where they have 4, and then 6.
EDGES = [*range(0, 5_000_000, 4001), *range(10**7, 4 * 10**8, 300_007), *range(10**9, 10**11, 10**8 + 7)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer()


def first_words(text: str, count: int) -> str:
    """Pairs of letters where a language's words are not told apart by spaces, or cost many tokens."""
    bare = re.sub("^(#|//|--) ", "", text)
    script = unicodedata.name(bare[0]).split()[0]
    if script in ("CJK", "HIRAGANA", "KATAKANA", "THAI", "GREEK", "DEVANAGARI"):
        return bare[: 2 * count]
    return " ".join(bare.split()[:count])


@pytest.mark.parametrize("tokens", [1, 4, 20])
def test_no_two_of_many_short_texts_are_alike(tokens: int) -> None:
    corpus = Corpus("seed", EVERY)
    texts = Counter(corpus.text(serial, tokens) for serial in range(20_000))
    assert len(texts) == 20_000


@pytest.mark.parametrize("language", EVERY)
def test_no_two_texts_of_a_language_are_alike_however_many_there_were(language: str) -> None:
    corpus = Corpus("seed", {language: 1})
    serials = sorted({*range(5000), *EDGES})
    assert len({corpus.text(serial, 1) for serial in serials}) == len(serials)


@pytest.mark.parametrize("language", EVERY)
def test_short_beginnings_are_never_how_longer_ones_begin(language: str) -> None:
    corpus = Corpus("seed", {language: 1})
    early, late, last = (
        {first_words(corpus.text(serial, 20), 1) for serial in range(first, first + 2000)}
        for first in (0, 10**7, 10**10)
    )
    assert not early & late
    assert not last & (early | late)


def test_texts_differ_within_their_first_three_words() -> None:
    corpus = Corpus("seed", EVERY)
    texts = [corpus.text(serial, 100) for serial in range(20_000)]
    assert len({first_words(text, 3) for text in texts}) == 20_000


@pytest.mark.parametrize("language", EVERY)
def test_neighbours_differ_in_their_first_word(language: str) -> None:
    corpus = Corpus("seed", {language: 1})
    firsts = [first_words(corpus.text(serial, 50), 1) for serial in range(500)]
    assert all(one != other for one, other in pairwise(firsts))


def test_texts_in_two_languages_never_begin_with_the_same_word() -> None:
    natural = [language for language in EVERY if language != "code"]
    seen: set[str] = set()
    for language in natural:
        corpus = Corpus("seed", {language: 1})
        firsts = {first_words(corpus.text(serial, 20), 1) for serial in range(2000)}
        assert not seen & firsts
        seen |= firsts


def test_the_same_texts_come_in_every_process() -> None:
    program = """
import hashlib
from loadtests.content.corpus import TOKENS_PER_UNIT, Corpus
from loadtests.content.images import image
corpus = Corpus("seed", dict.fromkeys(TOKENS_PER_UNIT, 1.0))
texts = [corpus.text(serial, 80) for serial in range(200)]
print(hashlib.sha256("|".join(texts).encode() + image("seed", 5, 64, 64, "png")).hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in (1, 2)
    }
    assert len(found) == 1


def test_another_seed_begins_with_other_words() -> None:
    one, other = (
        {first_words(corpus.text(serial, 9), 1) for serial in range(2000)}
        for corpus in (Corpus("a", {"en": 1}), Corpus("b", {"en": 1}))
    )
    assert one != other


def test_another_seed_has_other_texts_and_the_same_one_the_same() -> None:
    one, same, other = Corpus("a", EVERY), Corpus("a", EVERY), Corpus("b", EVERY)
    texts = [one.text(serial, 30) for serial in range(300)]
    assert texts == [same.text(serial, 30) for serial in range(300)]
    assert not set(texts) & {other.text(serial, 30) for serial in range(300)}


def test_flows_with_other_languages_beside_have_the_same_texts_in_one() -> None:
    alone, among = Corpus("seed", {"fr": 1}), Corpus("seed", EVERY)
    assert [alone.text(serial, 30) for serial in range(50)] == [
        among.text(serial, 30, "fr") for serial in range(50)
    ]


@pytest.mark.parametrize("language", EVERY)
def test_calibrated_texts_are_as_long_as_asked_on_average(language: str, tokenizer: Tokenizer) -> None:
    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    corpus = Corpus("seed", {language: 1})
    corpus.calibrate({language: count(corpus.probe(language, 300)) / 300})
    for tokens in (40, 200, 1000):
        mean = sum(count(corpus.text(serial, tokens)) for serial in range(200)) / 200
        assert mean == pytest.approx(tokens, rel=0.1)


@pytest.mark.parametrize("language", EVERY)
def test_a_text_that_is_longer_than_what_it_is_cut_from_has_its_length(language: str) -> None:
    corpus = Corpus("seed", {language: 1})
    one, ten = (len(corpus.text(3, tokens)) / tokens for tokens in (10_000, 100_000))
    assert ten == pytest.approx(one, rel=0.1)


def test_a_probe_has_as_many_units_as_asked() -> None:
    corpus = Corpus("seed", EVERY)
    assert len(corpus.probe("ko", 300).split()) == 300
    assert len(corpus.probe("ja", 300)) == pytest.approx(300, abs=3)


def test_languages_come_as_often_as_their_weights_say() -> None:
    corpus = Corpus("seed", {"en": 6, "ru": 3, "zh": 1})
    assert corpus.languages == ("en", "ru", "zh")
    scripts = Counter(unicodedata.name(corpus.text(serial, 20)[0]).split()[0] for serial in range(6000))
    assert scripts["CYRILLIC"] / 6000 == pytest.approx(0.3, abs=0.02)
    assert scripts["CJK"] / 6000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("language", EVERY)
def test_every_language_is_in_its_script(language: str) -> None:
    corpus = Corpus("seed", {language: 1})
    letters = {letter for serial in range(200) for letter in corpus.text(serial, 100) if letter.isalpha()}
    found = {unicodedata.name(letter).replace("-", " ").split()[0] for letter in letters}
    assert found == SCRIPTS[language]


def test_a_thai_text_does_not_begin_or_go_on_after_its_beginning_with_half_a_letter() -> None:
    corpus = Corpus("seed", {"th": 1})
    for serial in range(500):
        text = corpus.text(serial, 30)
        assert unicodedata.category(text[0]) == "Lo"
        assert unicodedata.category(text[6]) == "Lo"


def test_code_is_in_every_programming_language() -> None:
    corpus = Corpus("seed", {"code": 1})
    texts = "\n".join(corpus.text(serial, 300) for serial in range(60))
    for sign in ("def ", "=> {", "func (", "pub fn ", "SELECT ", "@Override"):
        assert sign in texts


def test_what_cannot_be_is_refused_with_the_field_and_what_would_be_right() -> None:
    with pytest.raises(ValueError, match=r"languages: at least one of en, .*code"):
        Corpus("seed", {})
    with pytest.raises(ValueError, match=r"'xx' is none of en, "):
        Corpus("seed", {"xx": 1})
    with pytest.raises(ValueError, match=r"languages\.de: a weight over 0"):
        Corpus("seed", {"en": 1, "de": 0})
    corpus = Corpus("seed", {"en": 1})
    with pytest.raises(ValueError, match=r"'xx' is none of"):
        corpus.calibrate({"xx": 1})
    with pytest.raises(ValueError, match=r"tokens of a unit of en: more than 0"):
        corpus.calibrate({"en": 0})
    with pytest.raises(ValueError, match=r"'xx' is none of"):
        corpus.probe("xx", 10)
