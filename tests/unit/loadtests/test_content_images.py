"""Images of a load: no two alike, of the size and form asked for, and as heavy as photographs."""

import io

import pytest
from PIL import Image

from loadtests.content.images import Form, image

FORMS: tuple[Form, ...] = ("jpeg", "png")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (28, 448), (640, 480), (900, 700)])
def test_an_image_has_the_size_and_form_asked_for(form: Form, width: int, height: int) -> None:
    picture = opened(image("seed", 1, width, height, form))
    picture.load()
    assert (picture.size, picture.format, picture.mode) == ((width, height), form.upper(), "RGB")


@pytest.mark.parametrize("form", FORMS)
def test_no_two_of_many_images_have_the_same_pixels(form: Form) -> None:
    pixels = {opened(image("seed", serial, 28, 28, form)).tobytes() for serial in range(1000)}
    assert len(pixels) == 1000


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_the_same_for_the_same_seed_and_another_for_another(form: Form) -> None:
    one = image("a", 7, 56, 56, form)
    assert one == image("a", 7, 56, 56, form)
    assert opened(one).tobytes() != opened(image("b", 7, 56, 56, form)).tobytes()


@pytest.mark.parametrize(("form", "least", "most"), [("jpeg", 0.8, 2.5), ("png", 10, 20)])
def test_an_image_is_as_heavy_as_a_photograph(form: Form, least: float, most: float) -> None:
    weights = [len(image("seed", serial, 448, 448, form)) * 8 / 448**2 for serial in range(20)]
    assert least < sum(weights) / len(weights) < most


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 x 1 pixels, not 0 x 5"):
        image("seed", 1, 0, 5, "png")
