"""Images that compress like photographs: soft colours, a few edges and some noise."""

import io
import random
from typing import Literal

from PIL import Image, ImageDraw

Form = Literal["png", "jpeg"]

_GROUND = 6
_SHAPES = 24
# Share of white noise: a standard deviation of 4 of 255, as of a good camera in daylight.
_NOISE = 0.055
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
    noise = Image.frombytes("RGB", (width, height), draw.randbytes(3 * width * height))
    picture = Image.blend(picture, noise, _NOISE)
    file = io.BytesIO()
    picture.save(file, form, quality=_JPEG_QUALITY, compress_level=_PNG_LEVEL)
    return file.getvalue()
