"""However many images there are, only so many pixels are alive at a time."""

import asyncio
import io

import pytest
from PIL import Image

from workers.decoding import Decoder
from workers.images import ImageError


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


class Alive:
    """Decodes, and notes how many pixels are alive and in which order the images came to be."""

    def __init__(self, pixels: int) -> None:
        self.decoder = Decoder(pixels)
        self.now = self.most = 0
        self.order: list[int] = []

    async def hold(self, data: bytes) -> None:
        async with self.decoder.decoded(data) as image:
            pixels = image.width * image.height
            self.order.append(pixels)
            self.now += pixels
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= pixels


async def test_pixels_are_bounded_and_every_image_has_its_turn() -> None:
    alive = Alive(1000)
    await asyncio.gather(*(alive.hold(png(10 + number % 3, 20)) for number in range(60)))
    assert len(alive.order) == 60
    assert 600 <= alive.most <= 1000


async def test_an_image_over_the_bound_goes_alone_and_is_not_overtaken_for_ever() -> None:
    alive = Alive(1000)
    small = [alive.hold(png(10, 30)) for _ in range(40)]
    await asyncio.gather(*small[:20], alive.hold(png(50, 50)), *small[20:])
    assert alive.most == 2500
    assert 2500 in alive.order[:30]


async def test_whoever_fails_or_leaves_gives_back_what_it_had() -> None:
    alive = Alive(1000)
    whole = png(40, 25)
    for _ in range(3):
        with pytest.raises(ImageError):
            await alive.hold(whole[:50])
        with pytest.raises(ImageError):
            await alive.hold(b"no image")
    waiting = [asyncio.create_task(alive.hold(whole)) for _ in range(8)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(5):
        await alive.hold(whole)


async def test_a_gif_counts_as_what_its_frame_is_and_not_as_its_screen() -> None:
    buffer = io.BytesIO()
    Image.new("P", (40, 25)).save(buffer, "GIF")
    gif = bytearray(buffer.getvalue())
    gif[6:10] = bytes((1, 0, 1, 0))
    alive = Alive(1999)
    await asyncio.gather(*(alive.hold(bytes(gif)) for _ in range(6)))
    assert alive.most == 1000
