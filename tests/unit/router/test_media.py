"""Media inside a request: base64, formats, and sizes in pixels."""

import base64
import io

import pytest
from PIL import Image as Pillow

from triptych.router.errors import MediaInvalid, TooLarge
from triptych.router.media.formats import (
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_TOKENS,
    PROMPT_TOKENS,
    check_image,
    read_image,
    read_pdf,
)
from triptych.workers.pixels import MAX_PIXELS

PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    + (56).to_bytes(4, "big")
    + (84).to_bytes(4, "big")
    + bytes(range(192, 256)) * 3
    + b"\xfb\xff"
)
PDF = b"%PDF-1.7\n" + bytes(range(256))
IMAGE = base64.b64encode(PNG).decode()
assert {"+", "/", "="} <= set(IMAGE)


@pytest.mark.parametrize(
    "value",
    [
        IMAGE,
        f"data:image/png;base64,{IMAGE}",
        f"data:image/jpeg;base64,{IMAGE}",
        f"data:;base64,{IMAGE}",
        f"data:;name=a.png;base64,{IMAGE}",
        f"data:image/png; charset=utf-8; base64,{IMAGE}",
        f'data:image/png;flag;name="a;b.png";base64,{IMAGE}',
        f"data:application/octet-stream;base64,{IMAGE}",
        f"data:image/png;base64,\n{IMAGE}\n",
        base64.encodebytes(PNG).decode().replace("\n", "\r\n"),
    ],
)
def test_base64_forms_are_accepted(value: str) -> None:
    assert read_image(value, 1000, "f")[0] == PNG
    # Line breaks do not count for the limit.
    assert read_image(value, len(PNG), "f")[0] == PNG
    with pytest.raises(TooLarge, match=r"^f: the image"):
        read_image(value, len(PNG) - 1, "f")


@pytest.mark.parametrize(
    "value",
    [
        *("", "=", IMAGE[:5], IMAGE[:-3] + "=", IMAGE + "=", IMAGE + "A"),
        *(IMAGE[:8] + character + IMAGE[8:] for character in "=!é"),
        *(f"data:image/png,{IMAGE}", f"data:image,base64,{IMAGE}", f"data:;{IMAGE}"),
    ],
)
def test_invalid_base64_is_refused(value: str) -> None:
    with pytest.raises(MediaInvalid, match=r"^f: "):
        read_image(value, 10_000, "f")


def test_pdf_header_may_come_late() -> None:
    late = bytes(1000) + PDF
    assert read_pdf(base64.b64encode(late).decode(), 10_000, "f") == late
    for data in (PNG, b"", bytes(2000) + PDF):
        with pytest.raises(MediaInvalid, match=r"^f: not a PDF"):
            read_pdf(base64.b64encode(data).decode(), 10_000, "f")
    with pytest.raises(MediaInvalid, match=r"^f: not a PNG"):
        read_image(base64.b64encode(PDF).decode(), 10_000, "f")


def test_pixel_limit_is_the_workers() -> None:
    assert MAX_IMAGE_PIXELS == MAX_PIXELS


def gif(screen: tuple[int, int], frame: tuple[int, int], before: bytes = b"", colours: bool = False) -> bytes:
    """The header of a GIF up to the size of its first frame."""
    sizes = [b"".join(side.to_bytes(2, "little") for side in size) for size in (screen, frame)]
    table = (b"\x81\0\0" + bytes(3 * 4)) if colours else bytes(3)
    return b"GIF89a" + sizes[0] + table + before + b"," + bytes(4) + sizes[1] + b"\0"


def claims(kind: str, width: int, height: int) -> bytes:
    """The header of an image file of this size."""
    match kind:
        case "png":
            return PNG[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big")
        case "gif":
            return gif((1, 1), (width, height))
        case "jpeg":
            size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
            return b"\xff\xd8\xff\xe0\x00\x04\0\0\xff\xc0\x00\x11\x08" + size + bytes(10)
        case "webp":
            size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            return b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["png", "gif", "jpeg", "webp"])
def test_pixel_bomb_is_refused(kind: str) -> None:
    fits, bomb = claims(kind, 10_000, 10_000), claims(kind, 10_001, 10_000)
    assert read_image(base64.b64encode(fits).decode(), 1000, "f")[0] == fits
    with pytest.raises(MediaInvalid, match=r"^f: the image has 10001x10000 pixels"):
        read_image(base64.b64encode(bomb).decode(), 1000, "f")


def test_image_cost_follows_its_size() -> None:
    assert check_image(PNG, "f") == 2 * 3 + PROMPT_TOKENS
    assert check_image(claims("png", 1, 1), "f") == 4 + PROMPT_TOKENS
    assert check_image(claims("png", 10_000, 10_000), "f") == MAX_IMAGE_TOKENS + PROMPT_TOKENS
    for unreadable in (PNG[:8], claims("png", 0, 5), b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\xff\xff", b"GIF89a"):
        assert check_image(unreadable, "f") == MAX_IMAGE_TOKENS + PROMPT_TOKENS


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("before", [b"", b"!\xf9\4\0\0\0\0\0", b"!\xfe" + b"\3,,," * 300 + b"\0!\xff\0"])
def test_gif_size_includes_first_frame(before: bytes, colours: bool) -> None:
    large = gif((1, 1), (9900, 9900), before, colours)
    assert check_image(large, "f") == MAX_IMAGE_TOKENS + PROMPT_TOKENS
    assert check_image(gif((56, 84), (1, 1), before, colours), "f") == 2 * 3 + PROMPT_TOKENS
    assert check_image(gif((1, 1), (56, 84), before, colours), "f") == 2 * 3 + PROMPT_TOKENS


@pytest.mark.parametrize("before", [b"!\xfe" + b"\1," * 100_000 + b"\0", b"!\xfe\xff", b"?", b";"])
def test_unreadable_gif_costs_the_most(before: bytes) -> None:
    assert check_image(gif((1, 1), (1, 1), before), "f") == MAX_IMAGE_TOKENS + PROMPT_TOKENS
    assert check_image(gif((1, 1), (1, 1))[:-5], "f") == MAX_IMAGE_TOKENS + PROMPT_TOKENS


def test_gif_size_is_as_pillows() -> None:
    buffer = io.BytesIO()
    frames = [Pillow.effect_noise((60, 90), 50) for _ in range(2)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], comment=b"words " * 999)
    data = buffer.getvalue()
    assert check_image(data, "f") == 60 * 90 // 784 + PROMPT_TOKENS
    small = bytearray(data)
    small[6:10] = bytes((1, 0, 1, 0))
    assert check_image(bytes(small), "f") == 60 * 90 // 784 + PROMPT_TOKENS
    assert Pillow.open(io.BytesIO(small)).size == (60, 90)
