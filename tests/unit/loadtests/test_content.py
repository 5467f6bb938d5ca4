"""What loads are filled with: texts, images and lengths, each as described and reproducible."""

import io
import random
import tomllib
import unicodedata
from collections import Counter

import pytest
from PIL import Image
from pydantic import TypeAdapter
from tokenizers import Tokenizer

from triptych.loadtests.content.corpus import LANGUAGES, NAME, Corpus, probe
from triptych.loadtests.content.pictures import Form, image
from triptych.loadtests.scenario import Lengths, draw_length
from triptych.workers.checkpoints.tiny import FILES
from triptych.workers.shared.families import V4

EVERY = dict.fromkeys(LANGUAGES, 1.0)
FORMS: tuple[Form, ...] = ("jpeg", "png")
LENGTHS: TypeAdapter[Lengths] = TypeAdapter(Lengths)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FILES / V4.name / "tokenizer.json"))


def texts(corpus: Corpus, count: int, tokens: int) -> list[str]:
    draw = random.Random("a")
    return [corpus.text(draw, serial, tokens) for serial in range(count)]


@pytest.mark.parametrize("tokens", [1, 20])
def test_texts_differ_from_their_first_word(tokens: int) -> None:
    found = texts(Corpus("seed", EVERY), 20_000, tokens)
    assert len({text.removeprefix("# ").split()[0] for text in found}) == 20_000


def test_texts_depend_on_the_seed_alone() -> None:
    one, same, other = (texts(Corpus(seed, EVERY), 200, 30) for seed in "aab")
    assert one == same
    assert not set(one) & set(other)


@pytest.mark.parametrize("language", EVERY)
def test_calibrated_texts_have_their_length(language: str, tokenizer: Tokenizer) -> None:
    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    calibration = {name: count(probe(name, 300)) / 300 for name in (language, NAME)}
    corpus = Corpus("seed", {language: 1}, calibration)
    for tokens in (40, 200, 1000):
        mean = sum(map(count, texts(corpus, 200, tokens))) / 200
        assert mean == pytest.approx(tokens, rel=0.15)


def test_languages_follow_their_weights() -> None:
    found = texts(Corpus("seed", {"en": 6, "ru": 3, "zh": 1}), 6000, 30)
    scripts = Counter(unicodedata.name(text.rstrip(".。")[-1]).split()[0] for text in found)
    assert scripts["CYRILLIC"] / 6000 == pytest.approx(0.3, abs=0.03)
    assert scripts["LATIN"] / 6000 == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("toml", "least", "most", "mean"),
    [
        ("7", 7, 7, 7),
        ("[1, 1, 10, 100]", 1, 100, 28),
        ("{median = 100, sigma = 0.5, low = 1, high = 5000}", 1, 5000, 113.3),
        # Cut at both ends.
        ("{median = 10, sigma = 9, low = 5, high = 30}", 5, 30, 17.3),
    ],
)
def test_drawn_lengths_have_limits_and_mean(toml: str, least: int, most: int, mean: float) -> None:
    draw, lengths = random.Random(1), LENGTHS.validate_python(tomllib.loads(f"its = {toml}")["its"])
    drawn = [draw_length(lengths, draw) for _ in range(20_000)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)


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
