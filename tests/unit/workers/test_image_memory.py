"""Images in memory are bounded in pixels."""

import asyncio
import io
import tracemalloc
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fakes.hang_guard import hang_guard
from triptych.workers.item_error import ItemError
from triptych.workers.pixels import ImageDecoder


def png(width: int, height: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG", **options)
    return buffer.getvalue()


class Holder:
    """Decodes and holds images; records the pixels in memory and the order."""

    def __init__(self, pixels: int) -> None:
        self.decoder = ImageDecoder(pixels)
        self.now = self.peak = 0
        self.order: list[int] = []

    async def hold(self, *files: bytes) -> None:
        async with self.decoder.decoded(*files) as images:
            pixels = sum(image.width * image.height for image in images)
            self.order.append(pixels)
            self.now += pixels
            self.peak = max(self.peak, self.now)
            # Several iterations of the event loop, so that images overlap.
            for _ in range(20):
                await asyncio.sleep(0)
            self.now -= pixels


async def test_pixels_in_memory_are_bounded() -> None:
    holder = Holder(1000)
    await asyncio.gather(*(holder.hold(png(10 + number % 3, 20)) for number in range(60)))
    assert len(holder.order) == 60
    assert 600 <= holder.peak <= 1000


async def test_text_in_waiting_images_takes_no_memory() -> None:
    text, size = PngInfo(), 1 << 20
    for number in range(8):
        text.add_text(str(number), " " * size, zip=True)
    image = png(40, 25, pnginfo=text)
    assert len(image) < size / 64
    holder = Holder(1000)
    tracemalloc.start()
    try:
        await asyncio.gather(*(holder.hold(image) for _ in range(20)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two threads read the text of an image each.
    assert peak < 4 * 8 * size


async def test_large_image_goes_alone_in_turn() -> None:
    holder = Holder(1000)
    small = [holder.hold(png(10, 30)) for _ in range(40)]
    await asyncio.gather(*small[:20], holder.hold(png(50, 50)), *small[20:])
    assert holder.peak == 2500
    assert 2500 in holder.order[:30]


async def test_images_of_one_input_do_not_wait_for_each_other() -> None:
    holder = Holder(1000)
    half = png(20, 25)
    async with hang_guard():
        await asyncio.gather(*(holder.hold(half, half) for _ in range(8)))
    assert holder.order == [1000] * 8
    assert holder.peak == 1000


async def test_failed_and_cancelled_free_their_pixels() -> None:
    holder = Holder(1000)
    whole = png(40, 25)
    for _ in range(3):
        with pytest.raises(ItemError):
            await holder.hold(whole[:50])
        with pytest.raises(ItemError):
            await holder.hold(b"no image")
    waiting = [asyncio.create_task(holder.hold(whole)) for _ in range(8)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with hang_guard():
        await holder.hold(whole)


async def test_gif_counts_by_its_frame() -> None:
    buffer = io.BytesIO()
    Image.new("P", (40, 25)).save(buffer, "GIF")
    gif = bytearray(buffer.getvalue())
    gif[6:10] = bytes((1, 0, 1, 0))
    holder = Holder(1999)
    await asyncio.gather(*(holder.hold(bytes(gif)) for _ in range(6)))
    assert holder.peak == 1000


@pytest.mark.parametrize(("query", "named"), [(None, False), (0, False), (1, True)])
async def test_error_says_if_the_image_is_a_querys(query: int | None, named: bool) -> None:
    with pytest.raises(ItemError) as error:
        async with ImageDecoder().decoded(png(40, 25), b"no image", query=query):
            pass
    assert error.value.query == named
