"""Reads large JSON bodies in steps: a parser would hold the interpreter for the whole body.

Long strings are decoded in pieces. In the rest of the body a name stands for each of them. The rest is small
and parsed at once.
"""

import json
import re
import secrets
from typing import Any

from pydantic_core import from_json

from triptych.router.api.bounds import check_values, most_values
from triptych.router.errors import Invalid

# Decoding a piece takes a few milliseconds.
PIECE_BYTES = 256 << 10
LONG_STRING_BYTES = 256

_SURROGATE = re.compile("[\ud800-\udfff]")
_CHARACTERS = re.compile(rb'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*+', re.DOTALL)
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_QUOTE = ord('"')
# Unpredictable, so that no client can send one.
_NAME = f"long string {secrets.token_hex(8)}-"


def read_large(
    body: bytes, max_items: int, piece_bytes: int = PIECE_BYTES, long_bytes: int = LONG_STRING_BYTES
) -> Any:
    """The value of `body`, which may have lone surrogates. Strings over `long_bytes` are decoded in pieces.

    Raises `ValueError` if it is not JSON, and `Invalid` if it has too many values for a request of
    `max_items` or is mostly something else than long strings.
    """
    # Each value is one string, or two with its key.
    most_strings = 2 * most_values(max_items)
    most_rest = most_strings * long_bytes
    rest: list[bytes] = []
    texts: dict[str, str] = {}
    size = at = 0
    for _ in range(most_strings):
        start = body.find(b'"', at) + 1
        if not start:
            break
        end = _characters_end(body, start, long_bytes)
        if end == len(body) or body[end] == _QUOTE:
            rest.append(body[at : end + 1])
        else:
            name = f"{_NAME}{len(texts)}"
            texts[name], end = _long_string(body, start, piece_bytes)
            rest.append(b'%b"%b"' % (body[at : start - 1], name.encode()))
        size += len(rest[-1])
        at = end + 1
        if size > most_rest:
            break
    if size + len(body) - at > most_rest:
        raise Invalid.field("body", "too much besides long strings", "too_long")
    rest.append(body[at:])
    joined = b"".join(rest)
    check_values(joined, max_items)
    return _with_texts(read(joined), texts)


def read(data: bytes) -> Any:
    """The value of `data`; each lone surrogate becomes U+FFFD. Raises `ValueError`."""
    try:
        return from_json(data)
    except ValueError as error:
        if "hex escape" not in str(error):
            raise
        return from_json(without_lone_surrogates(data))


def without_lone_surrogates(data: bytes) -> str:
    """Replace lone surrogates with U+FFFD. Raises `ValueError`.

    `json` accepts lone surrogates and joins pairs, so all surrogates in its output are lone.
    """
    try:
        return _SURROGATE.sub("\ufffd", json.dumps(json.loads(data.decode()), ensure_ascii=False))
    except RecursionError:
        raise ValueError("recursion limit exceeded") from None


def _long_string(body: bytes, at: int, piece_bytes: int) -> tuple[str, int]:
    """The text of the string that begins at `at`, and the offset of its last quote."""
    pieces = []
    while True:
        end = _piece_end(body, at, piece_bytes)
        pieces.append(read(b'"%b"' % body[at:end]))
        if body[end : end + 1] == b'"':
            return "".join(pieces), end
        if end == at:
            raise ValueError(f"a string is not closed or has an invalid escape at byte {at}")
        at = end


def _piece_end(body: bytes, at: int, most: int) -> int:
    """Where the piece that begins at `at` ends: before a whole character."""
    end = _characters_end(body, at, most)
    while at < end < len(body) and body[end] & 0xC0 == 0x80:
        end -= 1
    if _HIGH_SURROGATE.fullmatch(body, end - 6, end) and _LOW_SURROGATE.match(body, end):
        end += 6
    return end


def _characters_end(body: bytes, at: int, most: int) -> int:
    found = _CHARACTERS.match(body, at, at + most)
    assert found is not None
    return found.end()


def _with_texts(value: Any, texts: dict[str, str]) -> Any:
    """`value` with each name replaced by its text."""
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, list):
        return [_with_texts(part, texts) for part in value]
    if isinstance(value, dict):
        return {key: _with_texts(part, texts) for key, part in value.items()}
    return value
