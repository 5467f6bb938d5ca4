"""Images that compress like photographs: a soft ground, shapes with edges, and some noise."""

import io
import random
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Form = Literal["png", "jpeg"]

# Colours a side of what is stretched to the image's size: the soft shades of a photograph.
_GROUND = 6
_SHAPES = 24
# Standard deviation, of 255: that of a good camera in daylight.
_NOISE = 4.0
_NOISE_BYTES = 1 << 20
_JPEG_QUALITY = 85
# Noise hardly compresses: to try harder takes several times as long.
_PNG_LEVEL = 1


def image(seed: str, serial: int, width: int, height: int, form: Form) -> bytes:
    """An RGB image of `width` by `height` pixels, the same for the same arguments.

    Every serial has other pixels, unless there are so few of them that chance makes two alike.

    A JPEG has about 30 kB at 448 x 448 and 10 kB at 224 x 224 (1.2 and 1.6 bits a pixel), a PNG 400 kB and
    100 kB (16 bits); a PNG also takes nearly ten times as long to make.
    Raises `ValueError` for a side of less than 1 pixel.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image needs at least 1 x 1 pixels, not {width} x {height}")
    draw = random.Random(f"{seed} {serial}")
    ground = Image.frombytes("RGB", (_GROUND, _GROUND), draw.randbytes(3 * _GROUND**2))
    picture = ground.resize((width, height), Image.Resampling.BICUBIC)
    _add_shapes(picture, draw)
    picture = ImageChops.add(picture, _noise(width, height, draw.randrange(_NOISE_BYTES)), offset=-128)
    file = io.BytesIO()
    if form == "jpeg":
        picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    else:
        picture.save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()


def _add_shapes(picture: Image.Image, draw: random.Random) -> None:
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    for _ in range(_SHAPES):
        red, green, blue = draw.randbytes(3)
        x, y = draw.randrange(width), draw.randrange(height)
        box = (x, y, x + draw.randrange(width) // 4, y + draw.randrange(height) // 4)
        shape = draw.choice((pen.ellipse, pen.rectangle, pen.line))
        shape(box, fill=(red, green, blue))


def _noise(width: int, height: int, begin: int) -> Image.Image:
    """Around 128, cut from a store of it, since to draw it anew takes longer than all else."""
    size = 3 * width * height
    store = _noise_store()
    piece = store[begin : begin + size]
    if len(piece) < size:
        piece = (piece + store * (size // len(store) + 1))[:size]
    return Image.frombytes("RGB", (width, height), piece)


@cache
def _noise_store() -> bytes:
    return np.random.default_rng(0).normal(128, _NOISE, _NOISE_BYTES).round().astype(np.uint8).tobytes()
