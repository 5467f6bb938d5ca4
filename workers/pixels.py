"""Encoded images to RGB pixels, with bounded memory.

The pixels are those of the model's own code (`modeling_jina_embeddings_v4.py`: `Image.open` and
`convert("RGB")`), so that vectors agree with those made elsewhere: alpha is dropped, colour profiles and
EXIF rotation are ignored. One exception: 16-bit greyscale is scaled to 8 bits first, as Pillow does for
16-bit colour; `convert` alone would clip nearly all of it to white.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from triptych.workers.item_error import ItemError

PillowImage: TypeAlias = Pillow.Image
T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# 300 MB decoded, at 3 bytes each. The model sees at most 602,112 of them.
MAX_PIXELS = 100_000_000
# transformers' `smart_resize` refuses longer images.
MAX_ASPECT_RATIO = 200
# Pillow keeps 4 bytes for each pixel: 400 MB. Decoding takes as much again, of a WebP three times as much.
PIXELS_IN_MEMORY = 100_000_000
# Several for each chunk of a PNG or segment of a JPEG. A PNG of 8 MiB usually has 1,000 chunks or fewer.
MAX_READS = 50_000


class ImageDecoder:
    """Decodes images in two threads, in order of arrival, with at most `pixels` in memory at a time.

    A file of a few kilobytes can hold 100 million pixels, and a batch hundreds of such files. An image of
    more than `pixels` is decoded alone.
    """

    def __init__(self, pixels: int = PIXELS_IN_MEMORY) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="images")
        self._pixels = self._free = pixels
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def decoded(self, *files: bytes, query: int | None = None) -> AsyncIterator[list[PillowImage]]:
        """RGB pixels of the first frame of each. They count as in memory until the block ends.

        Raises `ItemError` for a broken or too large image (the size is checked before decoding), and
        `MemoryError`, which is not the image's fault. `query` is the index of a query's image, whose error
        has `query` set.
        """
        # Together: two inputs that each hold one image and wait for another would wait for ever.
        pixels = min(sum(await self._each(_area, files, query)), self._pixels)
        # The lock is fair, so small images cannot overtake a large one for ever.
        async with self._turn:
            while self._free < pixels:
                self._freed.clear()
                await self._freed.wait()
            self._free -= pixels
        try:
            yield await self._each(_rgb, files, query)
        finally:
            self._free += pixels
            self._freed.set()

    async def _each(self, step: Callable[[bytes], T], files: Sequence[bytes], query: int | None) -> list[T]:
        loop, done = asyncio.get_running_loop(), []
        for number, file in enumerate(files):
            try:
                done.append(await loop.run_in_executor(self._threads, step, file))
            except ItemError as error:
                raise error.of_query() if number == query else error from error.__cause__
        return done


def striped_png(size: int = 112) -> bytes:
    """A small square test image in which no two patches are equal."""
    rows, columns = np.mgrid[0:size, 0:size]
    pixels = np.stack([rows * 2, columns * 2, rows ^ columns], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _pillow_errors() -> Iterator[None]:
    """Turn every error of Pillow into an `ItemError`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise _invalid(f"the data is not a {', '.join(FORMATS)} image") from error
    except (ItemError, MemoryError):
        raise
    # Pillow has no base class for broken files; a crafted one may raise IndexError or anything else.
    except Exception as error:
        raise _invalid(f"the image cannot be decoded: {error}") from error


class _File(io.BytesIO):
    """A file that may not be read in very many pieces.

    Pillow reads each in Python, and for each piece of EXIF data copies all before it: up to 15 seconds for
    8 MiB, in which other images wait and the event loop is slow.
    """

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise _invalid("the file consists of too many pieces")
        return super().read(size)


@_pillow_errors()
def _open(data: bytes) -> PillowImage:
    """Read the header, and check the size."""
    image = Pillow.open(_File(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _invalid(f"the image has {width}x{height} pixels, the limit is {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise _invalid(f"the image is {width}x{height}, the longest aspect ratio is {MAX_ASPECT_RATIO}:1")
    return image


def _area(data: bytes) -> int:
    """The number of pixels. Keeps nothing else: a few kilobytes of file can hold 64 MB of text."""
    image = _open(data)
    return image.width * image.height


@_pillow_errors()
def _rgb(data: bytes) -> PillowImage:
    image = _open(data)
    if image.mode.startswith("I"):
        return Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    pixels = image.convert("RGB")
    # Otherwise vLLM rotates the image by the orientation in its EXIF or XMP data.
    pixels.info.clear()
    return pixels


def _invalid(message: str) -> ItemError:
    return ItemError("media_invalid", message)
