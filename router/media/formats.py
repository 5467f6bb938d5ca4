"""Media as requests carry them: changes when a form of sending one, or of telling its size, does."""

import binascii
import re
from typing import Literal, NamedTuple

from router.errors import MediaInvalid, TooLarge

# What the model makes of an image: 28 by 28 pixels a token, 602,112 pixels at most (768 tokens).
PIXELS_PER_TOKEN = 28 * 28
MAX_IMAGE_TOKENS = 768
# The words that the model puts around every image.
PROMPT_TOKENS = 12

# So many blocks a GIF is read for its first frame: some hold tens of kilobytes of text before it, and one of
# megabytes of empty comments would hold up the event loop.
_GIF_BLOCKS = 1000

# A file of a few kilobytes can claim more; the workers would refuse it too, after the way there.
MAX_IMAGE_PIXELS = 100_000_000

_IMAGE_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE | re.ASCII)
# Browsers and mail programs write no type, or application/octet-stream, for a file they do not know.
_ANY_URI = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE | re.ASCII)
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
# Readers take a PDF with other bytes before its header, within this many.
_PDF_HEADER_WITHIN = 1024
_TO_STANDARD_ALPHABET = str.maketrans("-_", "+/")


class Media(NamedTuple):
    """Media that is no image for a worker yet: an http(s) address of either kind, or the bytes of a PDF."""

    kind: Literal["image", "pdf"]
    source: str | bytes


def is_image_uri(value: str) -> bool:
    """Whether a string is a `data:image/...;base64,` URI, and so an image rather than a text."""
    return value[:5].lower() == "data:" and _IMAGE_URI.match(value) is not None


def is_remote(value: str) -> bool:
    """Whether a string is an http(s) address, and so to be fetched."""
    return value[:8].lower().startswith(("http://", "https://"))


def read_image(value: str, max_bytes: int, field: str) -> bytes:
    """The bytes of an image sent as base64 or as a data URI of any type, not decoded any further.

    Raises `TooLarge` before decoding, `MediaInvalid` for what is neither form or no image to be taken.
    """
    data = _read_base64(value, "data:image/...;base64,", max_bytes, f"{field}: the image")
    check_image(data, field)
    return data


def read_pdf(value: str, max_bytes: int, field: str) -> bytes:
    """The bytes of a PDF sent as base64 or as a data URI; raises as `read_image` does."""
    data = _read_base64(value, "data:application/pdf;base64,", max_bytes, f"{field}: the PDF")
    check_pdf(data, field)
    return data


def check_image(data: bytes, field: str) -> None:
    """Raise `MediaInvalid` for what is no image of a known type, or one whose header claims too much."""
    if not data.startswith(_SIGNATURES) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise MediaInvalid(f"{field}: not a PNG, JPEG, WebP or GIF image")
    width, height = _pixel_size(data)
    if width * height > MAX_IMAGE_PIXELS:
        raise MediaInvalid(
            f"{field}: the image has {width}x{height} pixels; at most {MAX_IMAGE_PIXELS:,} are taken"
        )


def check_pdf(data: bytes, field: str) -> None:
    """Raise `MediaInvalid` for what does not begin as a PDF does."""
    if b"%PDF-" not in data[:_PDF_HEADER_WITHIN]:
        raise MediaInvalid(f"{field}: not a PDF")


def _read_base64(value: str, wanted: str, max_bytes: int, what: str) -> bytes:
    """The bytes behind base64; also with line breaks, in the alphabet for URLs, or without its padding."""
    match = _ANY_URI.match(value) if value[:5].lower() == "data:" else None
    encoded = value[match.end() :] if match else value
    if _decoded_size(encoded) > max_bytes:
        encoded = "".join(encoded.split())
        if (size := _decoded_size(encoded)) > max_bytes:
            raise TooLarge(f"{what} has {size} bytes; at most {max_bytes} are taken")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        reason = str(error).lower()
    # Not what the clients that are known send, but what `base64` and `btoa` make of a file.
    encoded = "".join(encoded.split()).translate(_TO_STANDARD_ALPHABET)
    if not encoded.endswith("="):
        encoded += "=" * (-len(encoded) % 4)
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise MediaInvalid(
            f"{what} is neither an http(s) address, base64 nor a {wanted} URI ({reason})"
        ) from None


def _decoded_size(encoded: str) -> int:
    return len(encoded) * 3 // 4 - encoded.endswith("=") - encoded.endswith("==")


def image_tokens(data: bytes) -> int:
    """About how many tokens an image costs; the most there can be when its size is not easily read."""
    width, height = _pixel_size(data)
    if width <= 0 or height <= 0:
        return MAX_IMAGE_TOKENS + PROMPT_TOKENS
    return min(MAX_IMAGE_TOKENS, max(4, width * height // PIXELS_PER_TOKEN)) + PROMPT_TOKENS


def _pixel_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header, (0, 0) when it does not say."""
    if data.startswith(b"\x89PNG"):
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"GIF"):
        return _gif_size(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return 0, 0


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, made as large as its first frame needs it, as readers do; (0, 0) without a frame."""
    at = _gif_frame(data)
    if at is None:
        return 0, 0
    width, height = _two_shorts(data, 6)
    left, top = _two_shorts(data, at + 1)
    frame_width, frame_height = _two_shorts(data, at + 5)
    return max(width, left + frame_width), max(height, top + frame_height)


def _gif_frame(data: bytes) -> int | None:
    """Where the first frame is described: behind the colours and all extensions, which are of many blocks."""
    flags = data[10] if len(data) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    in_extension = False
    for _ in range(_GIF_BLOCKS):
        first = data[at : at + 1]
        if in_extension:
            # A block's length; the one of none is the last.
            at += 1 + int.from_bytes(first)
            in_extension = first > b"\0"
        elif first == b"!":
            at += 2
            in_extension = True
        else:
            return at if first == b"," and len(data) >= at + 9 else None
    return None


def _two_shorts(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments to the frame header (SOF0..SOF15 but DHT, JPG and DAC)."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return 0, 0
