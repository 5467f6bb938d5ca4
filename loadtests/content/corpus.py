"""Texts of about so many tokens, in many languages: cut from long ones, which takes microseconds."""

import random
import re
from array import array
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from math import gcd
from typing import NamedTuple

from loadtests.content import code
from loadtests.content.words import LANGUAGES, Words

CODE = "code"
CHARACTERS = frozenset(("zh", "ja", "th"))
"""Languages without spaces between words: their unit of length is a character. In code it is a word or a run
of signs, elsewhere a word."""

TOKENS_PER_UNIT: dict[str, float] = {
    "en": 1.2,
    "de": 1.6,
    "fr": 1.7,
    "es": 1.8,
    "pt": 2.0,
    "ru": 2.3,
    "el": 6.0,
    "ar": 2.1,
    "hi": 4.8,
    "ko": 2.35,
    "zh": 0.55,
    "ja": 0.82,
    "th": 0.53,
    CODE: 1.15,
}
"""Estimates, for a server that does not count: what the first Qwen's vocabulary makes of these texts. That of
Qwen2.5 was not at hand, and is taken to be much the same."""

STREAM_UNITS = 1 << 14
# Of how many parts the beginning of a text may be, and the share of first parts that say so: 3 for the first
# million of texts or so, 4 for the next few ten million, then 6.
_LEADS = ((3, 0.6), (4, 0.3), (6, 0.1))
_BITS = (1 << 64) - 1


class Stream(NamedTuple):
    """A long text, and all that is needed to cut a piece out of it and to put a beginning before that.

    Unit i goes from `cuts[i]` to `cuts[i + 1]`; where units are characters, both are moved to the nearest
    beginning of a word, so that a piece has its units on average. A beginning is `opening`, then some of
    `parts` with `space` between them, then `closing`. In units, each part adds `part_units` to a text's
    length, and `opening` and `closing` together add `frame_units`.
    """

    text: str
    cuts: Sequence[int]
    parts: tuple[str, ...]
    opening: str
    space: str
    closing: str
    part_units: float
    frame_units: float

    @property
    def units(self) -> int:
        return len(self.cuts) - 1

    def cut(self, offset: int, units: int) -> str:
        """`units` from `offset` on; from the beginning again where the stream ends."""
        whole, end = divmod(offset + units, self.units)
        if not whole:
            return self.text[self.cuts[offset] : self.cuts[end]]
        return self.text[self.cuts[offset] :] + self.text * (whole - 1) + self.text[: self.cuts[end]]

    def typical(self, units: int) -> str:
        """A piece of `units` that has as many characters as such pieces have on average."""
        if units >= self.units:
            return self.cut(0, units)
        wanted = units * len(self.text) / self.units
        offsets = range(self.units - units)
        return self.cut(
            min(offsets, key=lambda at: abs(self.cuts[at + units] - self.cuts[at] - wanted)), units
        )


class _Lead:
    """What texts begin with: different for every serial, by construction.

    A serial is written in base N, with N parts for digits, after it was moved by a bijection that depends on
    the seed, so that neighbours differ in their first part. How many parts follow can be told from the first,
    so that none is how another begins.
    """

    def __init__(self, name: str, stream: Stream) -> None:
        draw = random.Random(f"lead {name}")
        self._parts = draw.sample(stream.parts, len(stream.parts))
        self._stream = stream
        self._begins: list[int] = []
        self._sizes: list[tuple[int, int, int, int, int]] = []
        base, first, serial = len(self._parts), 0, 0
        for length, share in _LEADS:
            # Rounded down: together there are no more of them than parts.
            firsts = int(base * share)
            size = firsts * base ** (length - 1)
            step = draw.randrange(size // 4, size // 2)
            while gcd(step, size) > 1:
                step += 1
            self._begins.append(serial)
            self._sizes.append((length, size, step, draw.randrange(size), first * base ** (length - 1)))
            first, serial = first + firsts, serial + size

    def of(self, serial: int) -> tuple[str, float]:
        """The beginning, and its length in units."""
        place = bisect(self._begins, serial) - 1
        length, size, step, shift, low = self._sizes[place]
        number = low + ((serial - self._begins[place]) * step + shift) % size
        parts, base = self._parts, len(self._parts)
        chosen = []
        for _ in range(length):
            number, digit = divmod(number, base)
            chosen.append(parts[digit])
        chosen.reverse()
        stream = self._stream
        units = stream.frame_units + length * stream.part_units
        return stream.opening + stream.space.join(chosen) + stream.closing, units


class Corpus:
    """Texts in `languages`, each as often as its weight says; no two serials of one seed have the same text.

    They differ within their first few words, so that caches of prefixes gain nothing. With the same seed,
    languages, serial and length a text is the same in every process. Raises `ValueError` for a language that
    there is not, a weight that is not over 0, and no language at all.
    """

    def __init__(self, seed: str, languages: Mapping[str, float]) -> None:
        if not languages:
            raise ValueError(f"languages: at least one of {', '.join(TOKENS_PER_UNIT)} is needed")
        self.languages = tuple(languages)
        _check_known(languages)
        for name, weight in languages.items():
            if not weight > 0:
                raise ValueError(f"languages.{name}: a weight over 0 is needed, not {weight:g}")
        self._cumulative = list(accumulate(languages.values()))
        self._tokens_per_unit = dict(TOKENS_PER_UNIT)
        self._salt = random.Random(f"salt {seed}").getrandbits(64)
        self._leads = {
            name: [(stream, _Lead(f"{seed} {name}", stream)) for stream in streams(name)]
            for name in languages
        }

    def calibrate(self, tokens_per_unit: Mapping[str, float]) -> None:
        """Set, for some languages, how many tokens a word has (a character, for zh, ja and th).

        Until then it is `TOKENS_PER_UNIT`. Raises `ValueError` for a language that there is not, and for a
        number that is not over 0.
        """
        _check_known(tokens_per_unit)
        for name, tokens in tokens_per_unit.items():
            if not tokens > 0:
                raise ValueError(f"tokens of a unit of {name}: more than 0 are needed, not {tokens:g}")
        self._tokens_per_unit.update(tokens_per_unit)

    def probe(self, language: str, units: int) -> str:
        """A text of so many units, to send to a server that counts tokens, for `calibrate`."""
        _check_known([language])
        found = streams(language)
        shares = [
            units * (place + 1) // len(found) - units * place // len(found) for place in range(len(found))
        ]
        pieces = [stream.typical(share).strip() for stream, share in zip(found, shares, strict=True)]
        return "\n".join(pieces)

    def text(self, serial: int, tokens: int, language: str | None = None) -> str:
        """A text of about `tokens` tokens, `serial` from 0 to 10^11; at least its beginning, of 3 to 6 parts.

        With `language` None it is drawn by weight, from seed and serial; a `language` has to be one of
        `languages`.
        """
        noise = _mixed(serial, self._salt)
        if language is None:
            at = (noise >> 44) / (1 << 20) * self._cumulative[-1]
            language = self.languages[bisect(self._cumulative, at, hi=len(self._cumulative) - 1)]
        leads = self._leads[language]
        stream, lead = leads[(noise >> 32 & 0xFFF) * len(leads) >> 12]
        beginning, begun = lead.of(serial)
        # Rounded up as often as the fraction says, so that the mean is right for short texts too.
        units = int(tokens / self._tokens_per_unit[language] - begun + (noise & 0xFFF) / (1 << 12))
        if units < 1:
            return beginning.rstrip()
        return (beginning + stream.cut((noise >> 12 & 0xFFFFF) * stream.units >> 20, units)).rstrip()


def _check_known(languages: Iterable[str]) -> None:
    for name in languages:
        if name not in TOKENS_PER_UNIT:
            raise ValueError(f"language {name!r} is none of {', '.join(TOKENS_PER_UNIT)}")


def _mixed(number: int, salt: int) -> int:
    """64 bits that look drawn by lot: SplitMix64's last steps, since to seed `Random` takes far longer."""
    bits = (number * 0x9E3779B97F4A7C15 + salt) & _BITS
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & _BITS
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & _BITS
    return bits ^ bits >> 31


@cache
def streams(language: str) -> tuple[Stream, ...]:
    """Those that texts in a language are cut from: one, or one for each programming language. Made once a
    process, the same for all seeds."""
    draw = random.Random(f"stream {language}")
    if language == CODE:
        return tuple(_of_code(style, draw) for style in code.STYLES.values())
    words = LANGUAGES[language]
    text, begins = _sentences(words, draw)
    characters = language in CHARACTERS
    cuts = _nearest(begins) if characters else begins
    letters = len(text) / (len(begins) - 1)
    return (
        Stream(
            text=text,
            cuts=array("I", cuts),
            parts=_own_parts(language),
            opening="",
            space="" if words.pairs else " ",
            closing=words.space,
            part_units=2 if characters else 2 / letters if words.pairs else 1,
            frame_units=0,
        ),
    )


def _sentences(words: Words, draw: random.Random) -> tuple[str, list[int]]:
    """Words in sentences, and where each begins; the last is where the text ends."""
    pieces, begins, at = [], [0], 0
    left = 0
    for _ in range(STREAM_UNITS):
        word = draw.choice(words.words)
        if not left:
            left = draw.randint(4, 16)
            word = word[0].upper() + word[1:] if words.capitals else word
        left -= 1
        mark = draw.choice(words.ends) if not left else words.comma if draw.random() < 0.08 else ""
        piece = word + mark + words.space
        at += len(piece)
        pieces.append(piece)
        begins.append(at)
    return "".join(pieces), begins


def _nearest(begins: list[int]) -> list[int]:
    """For every place in a text, the nearest beginning of a word: to cut elsewhere may tear letters apart."""
    found, word = [], 0
    for place in range(begins[-1] + 1):
        while word + 1 < len(begins) and begins[word + 1] - place < place - begins[word]:
            word += 1
        found.append(begins[word])
    return found


def _of_code(style: code.Style, draw: random.Random) -> Stream:
    pieces: list[str] = []
    begins: list[int] = []
    at = 0
    while len(begins) < STREAM_UNITS:
        piece = code.function(style, draw) + "\n"
        begins += (at + found.start() for found in re.finditer(r"\w+|[^\w\s]+", piece))
        pieces.append(piece)
        at += len(piece)
    return Stream(
        text="".join(pieces),
        cuts=array("I", [*begins, at]),
        parts=code.WORDS,
        opening=style.comment,
        space=" ",
        closing="\n",
        part_units=1,
        frame_units=1,
    )


def _parts(words: Words) -> set[str]:
    return {word.lower()[:2] if words.pairs else word.lower() for word in words.words}


def _own_parts(language: str) -> tuple[str, ...]:
    """In no other language, so that texts in two languages begin differently too."""
    others = (_parts(words) for name, words in LANGUAGES.items() if name != language)
    return tuple(sorted(_parts(LANGUAGES[language]).difference(*others)))
