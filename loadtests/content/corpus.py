"""Texts of about a given number of tokens, in several languages and in code. No two are alike.

Words come from Faker, code from Python's standard library. A process makes a long stream of each language
once; a text is a slice of a stream, which takes microseconds.
"""

import argparse
import difflib
import inspect
import random
import re
import tarfile
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from faker import Faker

CODE = "code"
LOCALES = {
    "en": "en_US",
    "de": "de_DE",
    "fr": "fr_FR",
    "es": "es_ES",
    "pt": "pt_BR",
    "ru": "ru_RU",
    "el": "el_GR",
    "ar": "ar_AA",
    "hi": "hi_IN",
    "ko": "ko_KR",
    "zh": "zh_CN",
    "ja": "ja_JP",
    "th": "th_TH",
}
"""Faker's locale for each language."""
LANGUAGES = (*LOCALES, CODE)
NAME = "name"
"""Stands for the made-up name that each text begins with, where lengths are calibrated."""

# Faker has no word list for these: their texts are names and addresses.
_WITHOUT_WORDS = frozenset(("pt", "hi", "ko"))
# Written without spaces, so cut by character instead of by word.
_WITHOUT_SPACES = frozenset(("zh", "ja", "th"))
_CODE_MODULES = (argparse, difflib, inspect, tarfile, typing)
_SENTENCES = 500
# A rough estimate for servers that do not count tokens.
_BYTES_PER_TOKEN = 4.5

_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
_NAME_SYLLABLES = 5
_NAMES = len(_SYLLABLES) ** _NAME_SYLLABLES


class Stream(NamedTuple):
    """A long text; unit i goes from `cuts[i]` to `cuts[i + 1]`."""

    text: str
    cuts: Sequence[int]

    @classmethod
    def of(cls, units: Iterable[str]) -> "Stream":
        units = list(units)
        return cls("".join(units), list(accumulate(map(len, units), initial=0)))

    @property
    def units(self) -> int:
        return len(self.cuts) - 1

    def cut(self, begin: int, count: int) -> str:
        """`count` units from `begin`, starting over at the end."""
        begin %= self.units
        rounds, end = divmod(begin + count, self.units)
        if not rounds:
            return self.text[self.cuts[begin] : self.cuts[end]]
        return self.text[self.cuts[begin] :] + self.text * (rounds - 1) + self.text[: self.cuts[end]]


class Corpus:
    """Texts in `languages`, drawn by weight. Texts of different serials (below 10^10) differ from their first
    word.

    Raises `ValueError` for an unknown language or a weight that is not positive.
    """

    def __init__(self, seed: str, languages: Mapping[str, float]) -> None:
        _check_known(languages)
        if not languages or min(languages.values()) <= 0:
            raise ValueError(f"languages: need at least one, with weights over 0, not {dict(languages)}")
        self.languages = tuple(languages)
        self._weights = list(accumulate(languages.values()))
        self._tokens = {name: estimated_tokens(name) for name in (*languages, NAME)}
        draw = random.Random(f"names {seed}")
        self._shift = draw.randrange(_NAMES)
        # Coprime to the number of names, so that every serial has its own. Large, so that neighbours differ
        # early.
        self._step = draw.randrange(_NAMES // 100, _NAMES // 10) * 10 + 1

    def calibrate(self, tokens_per_unit: Mapping[str, float]) -> None:
        """Set the tokens of a unit (see `probe`) for some languages, as the server counts them."""
        self._tokens |= {name: tokens for name, tokens in tokens_per_unit.items() if name in self._tokens}

    def text(self, draw: random.Random, serial: int, tokens: int) -> str:
        """A text of about `tokens` tokens, at least its name. Language and content are drawn from `draw`."""
        [language] = draw.choices(self.languages, cum_weights=self._weights)
        name = made_up_name((serial * self._step + self._shift) % _NAMES)
        beginning = f"# {name}\n" if language == CODE else f"{name} "
        # Rounded at random, so that the mean is right for short texts too.
        units = int((tokens - self._tokens[NAME]) / self._tokens[language] + draw.random())
        if units < 1:
            return beginning.rstrip()
        return beginning + stream(language).cut(draw.randrange(1 << 20), units).rstrip()


def probe(language: str, units: int) -> str:
    """A text of `units` units, to learn how many tokens a unit has.

    A unit is a character in languages without spaces, otherwise a word.
    """
    _check_known([language])
    return stream(language).cut(0, units)


def estimated_tokens(language: str) -> float:
    """Tokens of a unit, estimated from the mean length of its UTF-8."""
    whole = stream(language)
    return len(whole.text.encode()) / whole.units / _BYTES_PER_TOKEN


def made_up_name(number: int) -> str:
    """A pronounceable name, different for each number below 10^10."""
    syllables = []
    for _ in range(_NAME_SYLLABLES):
        number, place = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[place])
    return "".join(reversed(syllables)).capitalize()


@cache
def stream(language: str) -> Stream:
    """What texts in a language are cut from; the same for all seeds."""
    if language == NAME:
        return Stream.of(made_up_name(number * (_NAMES // 199)) + " " for number in range(199))
    if language == CODE:
        text = "\n".join(inspect.getsource(module) for module in _CODE_MODULES)
    else:
        fake = Faker(LOCALES[language])
        fake.seed_instance(0)
        if language in _WITHOUT_WORDS:
            text = " ".join(f"{fake.name()}, {fake.address()}." for _ in range(_SENTENCES))
        elif language in _WITHOUT_SPACES:
            return Stream.of("".join(fake.sentences(_SENTENCES)))
        else:
            text = " ".join(fake.sentences(_SENTENCES))
    return Stream.of(re.findall(r"\S+\s+", text))


def _check_known(languages: Iterable[str]) -> None:
    for name in languages:
        if name not in (*LANGUAGES, NAME):
            raise ValueError(f"language {name!r}: not one of {', '.join(LANGUAGES)}")
