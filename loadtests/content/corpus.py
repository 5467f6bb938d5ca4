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
from collections.abc import Mapping
from functools import cache

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


class Corpus:
    """Texts in `languages`, drawn by weight. Texts of different serials (below 10^10) differ from their first
    word.

    `calibration`: the tokens of a unit (see `probe`) in some languages, as the server counts them.
    """

    def __init__(
        self, seed: str, languages: Mapping[str, float], calibration: Mapping[str, float] = {}
    ) -> None:
        self._languages = tuple(languages)
        self._weights = list(languages.values())
        self._tokens = {name: calibration.get(name) or estimated_tokens(name) for name in (*languages, NAME)}
        draw = random.Random(f"names {seed}")
        self._shift = draw.randrange(_NAMES)
        # Coprime to the number of names, so that every serial has its own. Large, so that neighbours differ
        # early.
        self._step = draw.randrange(_NAMES // 100, _NAMES // 10) * 10 + 1

    def text(self, draw: random.Random, serial: int, tokens: int) -> str:
        """A text of about `tokens` tokens, at least its name. Language and content are drawn from `draw`."""
        [language] = draw.choices(self._languages, self._weights)
        name = made_up_name((serial * self._step + self._shift) % _NAMES)
        beginning = f"# {name}\n" if language == CODE else f"{name} "
        # Rounded at random, so that the mean is right for short texts too.
        units = int((tokens - self._tokens[NAME]) / self._tokens[language] + draw.random())
        if units < 1:
            return beginning.rstrip()
        return beginning + _cut(language, draw.randrange(1 << 20), units).rstrip()


def probe(language: str, units: int) -> str:
    """A text of `units` words (characters in languages without spaces), to learn how many tokens one has."""
    return _cut(language, 0, units)


def estimated_tokens(language: str) -> float:
    """Tokens of a unit, estimated from the mean length of its UTF-8."""
    units = stream(language)
    return len("".join(units).encode()) / len(units) / _BYTES_PER_TOKEN


def made_up_name(number: int) -> str:
    """A pronounceable name, different for each number below 10^10."""
    syllables = []
    for _ in range(_NAME_SYLLABLES):
        number, place = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[place])
    return "".join(reversed(syllables)).capitalize()


@cache
def stream(language: str) -> list[str]:
    """The units that texts in a language are cut from; the same for all seeds."""
    if language == NAME:
        return [made_up_name(number * (_NAMES // 199)) + " " for number in range(199)]
    if language == CODE:
        text = "\n".join(inspect.getsource(module) for module in _CODE_MODULES)
    else:
        fake = Faker(LOCALES[language])
        fake.seed_instance(0)
        if language in _WITHOUT_WORDS:
            text = " ".join(f"{fake.name()}, {fake.address()}." for _ in range(_SENTENCES))
        elif language in _WITHOUT_SPACES:
            return list("".join(fake.sentences(_SENTENCES)))
        else:
            text = " ".join(fake.sentences(_SENTENCES))
    return re.findall(r"\S+\s+", text)


def _cut(language: str, begin: int, count: int) -> str:
    """`count` units from `begin`, starting over at the end."""
    units = stream(language)
    begin %= len(units)
    rounds = (begin + count - 1) // len(units)
    return "".join((units * (1 + rounds) if rounds else units)[begin : begin + count])
