"""Hostile images, PDFs and data URIs at their largest size cost a bounded number of steps and bytes."""

import base64
import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any, SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.router.errors import MediaInvalid, TooLarge
from triptych.router.media.formats import (
    MAX_IMAGE_TOKENS,
    PROMPT_TOKENS,
    check_image,
    is_image_uri,
    read_image,
    read_pdf,
)

# The default of ROUTER_MAX_IMAGE_BYTES.
LARGEST = 8 << 20
# Characters of a string, and a limit that is far smaller.
LONGEST = 16 << 20
LIMIT = 64 << 10

HEADS = {
    "png": [b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"],
    "jpeg": [b"\xff\xd8\xff\xe0\0\2", b"\xff\xd8\xff\xfe\xff\xff"],
    "gif": [b"GIF89a\1\0\1\0\0\0\0", b"GIF87a\1\0\1\0\x87\0\0" + bytes(768), b"GIF89a\1\0\1\0\0\0\0!\xfe"],
    "webp": [b"RIFF\0\0\0\0WEBP" + kind for kind in (b"VP8 ", b"VP8L", b"VP8X", b"")],
}
# Empty segments of a JPEG, empty and small blocks of a GIF, padding.
UNITS = [b"\xff\xe0\0\2", b"\xff\xe0\0\0", b"\xff", b"!\xfe\0", b"!\xfe\1,\0", b"\1,", b"\0"]


class Counted(bytes):
    """Counts how often it is read, and the bytes that are read."""

    steps = 0
    taken = 0

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        part = super().__getitem__(key)
        self.steps += 1
        self.taken += 1 if isinstance(part, int) else len(part)
        return part


def filled(head: bytes, unit: bytes, tail: bytes) -> Counted:
    """A file of the largest size: `head`, then `unit` again and again, then `tail`."""
    size = LARGEST - len(head) - len(tail)
    return Counted(head + (unit * (size // len(unit) + 1))[:size] + tail)


@pytest.mark.parametrize("kind", HEADS)
@settings(max_examples=30)
@given(data=st.data())
def test_image_check_is_bounded(kind: str, data: st.DataObject) -> None:
    head = data.draw(st.sampled_from(HEADS[kind]) | st.binary(max_size=40).map(HEADS[kind][0].__add__))
    unit = data.draw(st.sampled_from(UNITS) | st.binary(min_size=1, max_size=300))
    file = filled(head, unit, data.draw(st.binary(max_size=20)))
    with contextlib.suppress(MediaInvalid):
        assert 0 < check_image(file, "f") <= MAX_IMAGE_TOKENS + PROMPT_TOKENS
    assert file.steps <= 2000
    assert file.taken <= 10_000


@given(st.binary(max_size=200), st.sampled_from(sum(HEADS.values(), [b""])))
def test_any_bytes_are_answered(data: bytes, head: bytes) -> None:
    with contextlib.suppress(MediaInvalid):
        check_image(head + data, "f")


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes of memory that `call` takes."""
    tracemalloc.start()
    try:
        call()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


URI_UNITS = [";a=", "a", ";a=a", ";", "/", ",", ";base64,", " ", "é", "=", "A ", "\n", "AAAA", "-_"]


@pytest.mark.parametrize("unit", [";a=", "a", ",", ";base64,", "é", "A ", "AAAA"])
@pytest.mark.parametrize("head", ["data:image/", "data:image/png;a=", ""])
def test_long_string_takes_little_memory(head: str, unit: str) -> None:
    value = head + unit * ((LONGEST - len(head)) // len(unit))

    def read(reader: Callable[[str, int, str], object]) -> None:
        with pytest.raises((MediaInvalid, TooLarge)):
            reader(value, LIMIT, "f")

    assert peak_of(lambda: is_image_uri(value)) < 8 * LIMIT
    assert peak_of(lambda: read(read_image)) < 8 * LIMIT
    assert peak_of(lambda: read(read_pdf)) < 8 * LIMIT


@given(st.lists(st.sampled_from([*URI_UNITS, "data:", "image/png"]), max_size=40).map("".join))
def test_any_string_is_answered(value: str) -> None:
    assert isinstance(is_image_uri(value), bool)
    with pytest.raises((MediaInvalid, TooLarge)):
        read_image(value, LIMIT, "f")


@given(st.binary(min_size=1, max_size=200), st.data())
def test_base64_may_be_written_in_many_ways(content: bytes, data: st.DataObject) -> None:
    encode = data.draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    value = encode(b"%PDF-" + content).decode()
    if data.draw(st.booleans()):
        value = value.rstrip("=")
    for at in sorted(data.draw(st.lists(st.integers(0, len(value)), max_size=5)), reverse=True):
        value = value[:at] + data.draw(st.sampled_from(" \t\r\n")) + value[at:]
    assert read_pdf(value, 1000, "f") == b"%PDF-" + content
