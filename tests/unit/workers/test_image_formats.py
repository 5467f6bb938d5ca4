"""Image formats, colour modes, sizes, and broken files."""

import asyncio
import io
import struct
import warnings
import zlib
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vllm.multimodal.image import normalize_image

from triptych.workers import pixels
from triptych.workers.item_error import ItemError
from triptych.workers.pixels import MAX_ASPECT_RATIO, MAX_PIXELS, MAX_READS, ImageDecoder

RED, GREEN, BLUE = (250, 10, 20), (5, 240, 15), (10, 20, 230)


def decode_image(data: bytes) -> Image.Image:
    async def decode() -> Image.Image:
        async with ImageDecoder().decoded(data) as [image]:
            return image

    return asyncio.run(decode())


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def halves(data: bytes) -> tuple[Any, Any]:
    image = decode_image(data)
    assert image.mode == "RGB"
    quarter = image.width // 4
    return image.getpixel((quarter, image.height // 2)), image.getpixel((3 * quarter, image.height // 2))


def near(colour: tuple[int, int, int], within: int = 12) -> Any:
    return pytest.approx(colour, abs=within)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, packed: bytes, depth: int = 8, kind: int = 2) -> bytes:
    """A PNG whose pixels need not fit its size."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("PNG", {"interlace": 1}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
    ],
)
def test_formats_are_decoded(form: str, options: dict[str, Any]) -> None:
    assert halves(saved(picture(), form, **options)) == (near(RED), near(BLUE))


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_first_frame_is_taken(form: str) -> None:
    second = Image.new("RGB", (64, 32), GREEN)
    data = saved(picture(), form, save_all=True, append_images=[second], duration=100)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert halves(data) == (near(RED), near(BLUE))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped(form: str, alpha: int) -> None:
    image = picture("RGBA")
    image.putalpha(alpha)
    data = saved(image, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    assert halves(data) == (near(RED, 0), near(BLUE, 0))


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_16_bit_grey_is_scaled(grey: int) -> None:
    pixels = np.full((32, 64), grey << 8 | 0x80, np.uint16)
    assert halves(saved(Image.fromarray(pixels), "PNG")) == ((grey,) * 3, (grey,) * 3)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_channels_are_scaled(kind: int, channels: int) -> None:
    row = b"\0" + struct.pack(">H", 0x4321) * 8 * channels
    data = png(8, 8, zlib.compress(row * 8), depth=16, kind=kind)
    assert decode_image(data).getpixel((0, 0)) == near((0x43,) * 3, 1)


EXIF = Image.Exif()
EXIF[0x0112] = 6
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0, "exif": EXIF.tobytes()}),
        ("PNG", {"exif": EXIF.tobytes()}),
        ("WEBP", {"lossless": True, "exif": EXIF.tobytes()}),
        ("WEBP", {"lossless": True, "xmp": XMP}),
    ],
)
def test_orientation_is_ignored(form: str, options: dict[str, Any]) -> None:
    """vLLM rotates an image that still has metadata."""
    data = saved(picture(), form, **options)
    assert halves(data) == (near(RED), near(BLUE))
    assert normalize_image(Image.open(io.BytesIO(data))).size == (32, 64)
    assert normalize_image(decode_image(data)).size == (64, 32)


@pytest.mark.parametrize("size", [(1, 1), (MAX_ASPECT_RATIO, 1), (3, 3 * MAX_ASPECT_RATIO)])
def test_extreme_sizes_are_taken(size: tuple[int, int]) -> None:
    assert decode_image(saved(picture(size=size), "PNG")).size == size


@pytest.mark.parametrize("size", [(MAX_ASPECT_RATIO + 1, 1), (1, MAX_ASPECT_RATIO + 1), (10_000, 2)])
def test_aspect_ratio_is_limited(size: tuple[int, int]) -> None:
    with pytest.raises(ItemError, match=f"{size[0]}x{size[1]}"):
        decode_image(saved(picture(size=size), "PNG"))


@pytest.mark.parametrize("side", [10_001, 13_500, 40_000, 2**31 - 1])
def test_bomb_is_refused_undecoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = Mock()
    bomb = png(side, side, zlib.compress(bytes(1 << 20)))
    monkeypatch.setattr(pixels.Pillow.Image, "convert", decoded)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert side * side > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ItemError):
            decode_image(bomb)
    assert not decoded.called


def test_bomb_in_text_chunk_is_refused() -> None:
    bomb = zlib.compress(bytes(64 << 20))
    whole = saved(picture(), "PNG")
    with pytest.raises(ItemError):
        decode_image(whole[:33] + chunk(b"zTXt", b"a\0\0" + bomb) + whole[33:])


@pytest.mark.parametrize(
    ("form", "at", "piece"),
    [
        ("PNG", 33, chunk(b"prIv", b"")),
        ("PNG", -12, chunk(b"IDAT", b"")),
        ("JPEG", 2, b"\xff\xe1\0\x0cExif\0\0abcd"),
        ("GIF", 25, b"!\xfe\1a\0"),
    ],
)
def test_file_of_very_many_pieces_is_refused(form: str, at: int, piece: bytes) -> None:
    whole = saved(picture(), form)
    assert halves(whole[:at] + 1000 * piece + whole[at:]) == (near(RED), near(BLUE))
    with pytest.raises(ItemError, match="pieces"):
        decode_image(whole[:at] + MAX_READS * piece + whole[at:])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    at=st.integers(0, 400),
    junk=st.binary(max_size=40)
    | st.sampled_from([b"iCCP", b"zTXt", b"acTL", b"tRNS"]).map(lambda n: chunk(n, b"a")),
    lost=st.integers(0, 400),
)
def test_broken_file_is_refused_or_decoded(form: str, at: int, junk: bytes, lost: int) -> None:
    whole = saved(picture(size=(16, 16)), form)
    with suppress(ItemError):
        assert decode_image(whole[:at] + junk + whole[at + lost :]).mode == "RGB"


def test_memory_error_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels.Pillow.Image, "convert", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        decode_image(saved(picture(), "PNG"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_file_is_refused(form: str) -> None:
    data = saved(Image.effect_noise((64, 64), 80).convert("RGB"), form)
    with pytest.raises(ItemError):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data",
    [b"", b"%PDF-1.7", *(saved(picture(), form) for form in ("BMP", "TIFF", "ICO", "PPM", "TGA", "EPS"))],
)
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(ItemError, match="PNG, JPEG, WEBP, GIF"):
        decode_image(data)
