"""Encoded image bytes to pixels, refusing what is not an image or would not fit into memory.

The pixels are those that the model's own code makes (`modeling_jina_embeddings_v4.py`: `Image.open` and
`convert("RGB")`), because vectors must agree with those made elsewhere. So alpha is dropped, not laid over
a colour; colour profiles are not applied; and a photo is not turned as its EXIF data says. One thing is
done otherwise: `convert` makes nearly all of a 16-bit greyscale image white, so such an image is brought
down to 8 bits first, as Pillow itself does for 16 bits of colour.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

PillowImage: TypeAlias = Pillow.Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# 3 bytes each: 300 MB decoded. The model itself sees 602,112 at most.
MAX_PIXELS = 100_000_000
# The processor refuses anything longer (transformers, smart_resize).
MAX_ASPECT_RATIO = 200


def striped_png() -> bytes:
    """A small image of which no two patches are the same."""
    rows, columns = np.mgrid[0:112, 0:112]
    pixels = np.stack([rows * 2, columns * 2, rows ^ columns], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class ImageError(ValueError):
    """The bytes are no image that can be embedded; the message says why."""


def count_pixels(data: bytes) -> int:
    """How many pixels the image would have; decodes none. Raises `ImageError`."""
    with _refusing():
        width, height = _open(data).size
        return width * height


def decode_image(data: bytes) -> PillowImage:
    """RGB pixels of the first frame, as the model's own code has them: no alpha, no rotation.

    Raises `ImageError`, and `MemoryError` when there is none left, which is not the image's fault. The size
    is read from the header and checked before anything is decoded.
    """
    with _refusing():
        image = _open(data)
        if image.mode.startswith("I"):
            return Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        pixels = image.convert("RGB")
        # vLLM rotates an image by the orientation in its EXIF or XMP data.
        pixels.info.clear()
        return pixels


def _open(data: bytes) -> PillowImage:
    image = Pillow.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image has {width}x{height} pixels; at most {MAX_PIXELS:,} are taken")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"the image is {width}x{height}; one side may be {MAX_ASPECT_RATIO} times the other at most"
        )
    return image


@contextmanager
def _refusing() -> Iterator[None]:
    """Say `ImageError` for all that Pillow may say of a file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError(f"the data is no image of a known format ({', '.join(FORMATS)})") from error
    except (ImageError, MemoryError):
        raise
    # Pillow has no exception of its own for what is wrong with a file: a crafted one comes to an IndexError
    # or to whatever else its parts are read with.
    except Exception as error:
        raise ImageError(f"the image cannot be decoded: {error}") from error
