"""Images decoded for the engine, of so many pixels at a time that memory lasts."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from workers.images import PillowImage, count_pixels, decode_image

# Pillow keeps 4 bytes of each: 400 MB, and up to as much again while they are being decoded. That is one of
# the largest images there are, or eight photos of 12 million pixels, more than two threads decode while the
# engine does a step.
PIXELS_AT_ONCE = 100_000_000


class Decoder:
    """Decodes images in threads, first come, first served, with `pixels` of them alive at a time.

    A file of kilobytes can hold an image of 100 million pixels, and a batch hundreds of them. An image of
    more than `pixels` goes alone.
    """

    def __init__(self, pixels: int = PIXELS_AT_ONCE) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="images")
        self._pixels = self._free = pixels
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def decoded(self, data: bytes) -> AsyncIterator[PillowImage]:
        """The pixels of an encoded image, which count as alive until the block is left.

        Raises what `decode_image` does.
        """
        loop = asyncio.get_running_loop()
        pixels = min(await loop.run_in_executor(self._threads, count_pixels, data), self._pixels)
        # The lock is fair, so that a large image is not overtaken for ever.
        async with self._turn:
            while self._free < pixels:
                self._freed.clear()
                await self._freed.wait()
            self._free -= pixels
        try:
            yield await loop.run_in_executor(self._threads, decode_image, data)
        finally:
            self._free += pixels
            self._freed.set()
