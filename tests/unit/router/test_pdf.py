"""PDFs: pages in order and size, limits, and errors of documents."""

import io
import zlib

import pytest
from PIL import Image

from tests.unit.router.pdfs import COLOURS, coloured_pdf, renderer, stream, write_pdf
from triptych.router.errors import MediaInvalid
from triptych.router.media.pdf_process import (
    MAX_PIXELS,
    page_size,
)


def opened(page: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(page))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


async def test_pages_become_images_in_order() -> None:
    async with renderer(1) as rendering:
        pages = [opened(page) for page in await rendering.render(coloured_pdf(4), 4, "f")]
    middles = [page.getpixel((page.width // 2, page.height // 2)) for page in pages]
    assert middles == COLOURS
    for page in pages:
        # The edges would be white if the page were smaller than its image.
        assert page.getpixel((page.width - 1, page.height - 1)) == page.getpixel((0, 0))


@pytest.mark.parametrize(
    ("points", "pixels"),
    [
        # As much as the model looks at, and no more.
        ((595, 842), (652, 923)),
        ((842, 595), (923, 652)),
        ((14_400, 14_400), (775, 775)),
        # Small pages at 200 dots an inch.
        ((72, 72), (200, 200)),
        ((144, 72), (400, 200)),
    ],
)
async def test_page_size_suits_the_model(points: tuple[int, int], pixels: tuple[int, int]) -> None:
    async with renderer(1) as rendering:
        [page] = await rendering.render(coloured_pdf(1, *points), 1, "f")
    width, height = opened(page).size
    assert width * height <= MAX_PIXELS
    assert (width, height) == pytest.approx(pixels, abs=1)


@pytest.mark.parametrize("points", [(0, 5), (-1, -1), (float("nan"), 5), (float("inf"), 5), (1e-9, 1e9)])
def test_invalid_page_size_is_refused(points: tuple[float, float]) -> None:
    assert page_size(*points) is None


ENCRYPTED = write_pdf(
    b"<</Type /Catalog /Pages 2 0 R>>",
    b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
    b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 100 100]>>",
    b"<</Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s>>>" % (b"ab" * 32, b"cd" * 32),
    trailer=b"/Encrypt 4 0 R /ID [<00> <00>]",
)

NO_PAGES = write_pdf(b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Count 0 /Kids []>>")

BROKEN = b"%PDF-1.7\nand then nothing of the kind"

FAULTS = {ENCRYPTED: "the PDF is encrypted", NO_PAGES: "the PDF has no pages", BROKEN: "the PDF is broken"}


async def test_each_document_has_its_own_error() -> None:
    order = [*FAULTS, *reversed(FAULTS)]
    async with renderer(1) as rendering:
        for data in order:
            with pytest.raises(MediaInvalid) as caught:
                await rendering.render(data, 10, "f")
            assert caught.value.detail == f"f: {FAULTS[data]}"
        [process] = rendering.idle
        assert process.documents == len(order)
        assert len(await rendering.render(coloured_pdf(2), 2, "f")) == 2
        assert rendering.idle == [process]


async def test_memory_bomb_fails_only_its_pdf() -> None:
    """An image of 60,000 by 60,000 pixels in a few kilobytes: 10 GB of them."""
    side = 60_000
    packed = zlib.compress(bytes(50 << 20), 9)
    picture = stream(
        packed,
        b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 8 /ColorSpace /DeviceRGB"
        b" /Filter /FlateDecode" % (side, side),
    )
    bomb = write_pdf(
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
        b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
        b" /Resources <</XObject <</I 5 0 R>>>>>>",
        stream(b"600 0 0 800 0 0 cm /I Do"),
        picture,
    )
    async with renderer(1) as rendering:
        try:
            [page] = await rendering.render(bomb, 1, "f")
        except MediaInvalid:
            pass
        else:
            assert opened(page).width * opened(page).height <= MAX_PIXELS
        assert len(await rendering.render(coloured_pdf(1), 1, "f")) == 1
