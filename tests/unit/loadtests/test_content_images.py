"""Images of a load: unique, of the right size and format, and compressing like photographs."""

import io

import pytest
from PIL import Image

from triptych.loadtests.content.pictures import Form, image

FORMS: tuple[Form, ...] = ("jpeg", "png")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (28, 448), (900, 700)])
def test_image_has_size_and_format(form: Form, width: int, height: int) -> None:
    picture = opened(image("seed", 1, width, height, form))
    picture.load()
    assert (picture.size, picture.format, picture.mode) == ((width, height), form.upper(), "RGB")


@pytest.mark.parametrize("form", FORMS)
def test_images_are_unique(form: Form) -> None:
    pixels = {opened(image("seed", serial, 28, 28, form)).tobytes() for serial in range(300)}
    assert len(pixels) == 300


@pytest.mark.parametrize(("form", "least", "most"), [("jpeg", 0.8, 2.5), ("png", 10, 20)])
def test_bits_per_pixel_of_a_photograph(form: Form, least: float, most: float) -> None:
    sizes = [len(image("seed", serial, 448, 448, form)) * 8 / 448**2 for serial in range(10)]
    assert least < sum(sizes) / len(sizes) < most
