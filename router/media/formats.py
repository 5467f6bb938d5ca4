"""Images and PDFs in requests: decode base64 and data URIs, detect the format, read the size in pixels."""

import re
from struct import unpack_from
from typing import Literal, NamedTuple

from pybase64 import b64decode

from triptych.router.errors import MediaInvalid, TooLarge

# The model resizes an image to at most 602,112 pixels and reads 28 by 28 pixels as a token.
PIXELS_PER_TOKEN = 28 * 28
MAX_IMAGE_TOKENS = 768
# The tokens of the prompt around each image.
PROMPT_TOKENS = 12

# Blocks of a GIF, or segments of a JPEG, that are searched for the size of the image. Some files have tens of
# kilobytes of text before it. Megabytes of empty blocks would take seconds.
_MAX_BLOCKS = 320

# The workers refuse larger images too. A few kilobytes of file can claim to be larger.
MAX_IMAGE_PIXELS = 100_000_000

# For unknown files, browsers and mail programs write no type, or application/octet-stream.
_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[^,]*)?; *base64,", re.IGNORECASE | re.ASCII)
# Characters of a data URI before its data: a type, and sometimes a file's name.
_MAX_URI_HEAD = 4096
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
# PDF readers accept other bytes before the header, up to this many.
_PDF_HEADER_WITHIN = 1024
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\n\v\f\r"


class Media(NamedTuple):
    """Media to load: an image or PDF at a URL, or the bytes of a PDF."""

    kind: Literal["image", "pdf"]
    source: str | bytes


def is_image_uri(value: str) -> bool:
    """Whether a string is a `data:image/...;base64,` URI."""
    match = _URI.match(value, 0, _MAX_URI_HEAD)
    return match is not None and (match[1] or "")[:6].lower() == "image/"


def is_remote(value: str) -> bool:
    """Whether a string is an http(s) URL."""
    return value[:8].lower().startswith(("http://", "https://"))


def read_image(value: str, max_bytes: int, field: str) -> tuple[bytes, int]:
    """Decode an image from base64 or from a data URI of any type. Returns the file and its estimated tokens.

    Raises `TooLarge`, and `MediaInvalid` if it is neither form or not a valid image.
    """
    data = _read_base64(value, "data:image/...;base64,", max_bytes, f"{field}: the image")
    return data, check_image(data, field)


def read_pdf(value: str, max_bytes: int, field: str) -> bytes:
    """Decode a PDF from base64 or from a data URI. Raises as `read_image` does."""
    data = _read_base64(value, "data:application/pdf;base64,", max_bytes, f"{field}: the PDF")
    check_pdf(data, field)
    return data


def check_image(data: bytes, field: str) -> int:
    """The estimated tokens of an image, the maximum if its size is unknown. Its pixels are not decoded.

    Raises `MediaInvalid` unless `data` starts as an image of a known format and of an allowed size.
    """
    if not data.startswith(_SIGNATURES) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise MediaInvalid(f"{field}: not a PNG, JPEG, WebP or GIF image")
    width, height = _pixel_size(data)
    if width * height > MAX_IMAGE_PIXELS:
        raise MediaInvalid(
            f"{field}: the image has {width}x{height} pixels; at most {MAX_IMAGE_PIXELS:,} are allowed"
        )
    if width <= 0 or height <= 0:
        return MAX_IMAGE_TOKENS + PROMPT_TOKENS
    return min(MAX_IMAGE_TOKENS, max(4, width * height // PIXELS_PER_TOKEN)) + PROMPT_TOKENS


def check_pdf(data: bytes, field: str) -> None:
    """Raise `MediaInvalid` unless `data` starts as a PDF."""
    if b"%PDF-" not in data[:_PDF_HEADER_WITHIN]:
        raise MediaInvalid(f"{field}: not a PDF")


def _read_base64(value: str, wanted: str, max_bytes: int, what: str) -> bytes:
    """Decode base64; line breaks, the URL-safe alphabet and missing padding are allowed."""
    match = _URI.match(value, 0, _MAX_URI_HEAD)
    start = match.end() if match else 0
    too_large = TooLarge(f"{what} has more than {max_bytes} bytes")
    # At most every second character is white space.
    if (len(value) - start) * 3 // 4 > 2 * max_bytes + 4:
        raise too_large
    encoded = value[start:]
    try:
        try:
            data = b64decode(encoded, validate=True)
        except ValueError:
            # Known clients do not send these forms, but `base64` and `btoa` write them.
            tidy = encoded.encode("ascii").translate(_TO_STANDARD_ALPHABET, _WHITE_SPACE)
            padding = b"" if tidy.endswith(b"=") else b"=" * (-len(tidy) % 4)
            data = b64decode(tidy + padding, validate=True)
    except ValueError:
        raise MediaInvalid(f"{what} is neither an http(s) URL, base64 nor a {wanted} URI") from None
    if len(data) > max_bytes:
        raise too_large
    return data


def _pixel_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header, (0, 0) if unknown."""
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
    """The screen, extended to its first frame as readers do; (0, 0) without a frame."""
    flags = data[10] if len(data) > 10 else 0
    at = 13
    if flags & 0x80:
        # A table of 2 to 256 colours, three bytes each.
        at += 3 << (flags & 7) + 1
    in_extension = False
    for _ in range(_MAX_BLOCKS):
        first = data[at : at + 1]
        if in_extension:
            # A block's length, then its data; an empty block is the last.
            at += 1 + int.from_bytes(first)
            in_extension = first > b"\0"
        elif first == b"!":
            at += 2
            in_extension = True
        elif first == b"," and len(data) >= at + 9:
            width, height = unpack_from("<2H", data, 6)
            left, top, frame_width, frame_height = unpack_from("<4H", data, at + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
        else:
            break
    return 0, 0


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Size in the frame header (SOF0..SOF15 without DHT, JPG and DAC), after other segments."""
    at = 2
    for _ in range(_MAX_BLOCKS):
        if at + 9 >= len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return 0, 0
