"""Images that compress like photographs: soft colours, a few edges and some noise."""

import io
import random
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Form = Literal["png", "jpeg"]

_GROUND = 6
_SHAPES = 24
# Standard deviation of the noise, of 255: a good camera in daylight.
_NOISE = 4.0
_NOISE_BYTES = 1 << 20
_JPEG_QUALITY = 85
# Noise hardly compresses; a higher level only takes longer.
_PNG_LEVEL = 1


def image(seed: str, serial: int, width: int, height: int, form: Form) -> bytes:
    """An RGB image, the same for the same arguments and different for each serial.

    At 448 x 448 pixels a JPEG has about 30 kB and a PNG 400 kB.
    """
    draw = random.Random(f"{seed} {serial}")
    ground = Image.frombytes("RGB", (_GROUND, _GROUND), draw.randbytes(3 * _GROUND**2))
    picture = ground.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(_SHAPES):
        x, y = draw.randrange(width), draw.randrange(height)
        box = (x, y, x + draw.randrange(width) // 4, y + draw.randrange(height) // 4)
        red, green, blue = draw.randbytes(3)
        draw.choice((pen.ellipse, pen.rectangle, pen.line))(box, fill=(red, green, blue))
    picture = ImageChops.add(picture, _noise(width, height, draw.randrange(_NOISE_BYTES)), offset=-128)
    file = io.BytesIO()
    picture.save(file, form, quality=_JPEG_QUALITY, compress_level=_PNG_LEVEL)
    return file.getvalue()


def _noise(width: int, height: int, begin: int) -> Image.Image:
    """Noise around 128, cut from a store: new noise would take longer than all the rest."""
    size = 3 * width * height
    store = _noise_store()
    piece = (store[begin:] + store * (size // len(store) + 1))[:size]
    return Image.frombytes("RGB", (width, height), piece)


@cache
def _noise_store() -> bytes:
    return np.random.default_rng(0).normal(128, _NOISE, _NOISE_BYTES).round().astype(np.uint8).tobytes()
