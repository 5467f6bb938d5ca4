"""Lengths as a scenario describes them."""

import random
import tomllib
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from triptych.loadtests.content.lengths import Lengths, draw_length

ADAPTER: TypeAdapter[Any] = TypeAdapter(Lengths)


def parsed(toml: str) -> Lengths:
    lengths: Lengths = ADAPTER.validate_python(tomllib.loads(f"tokens = {toml}")["tokens"])
    return lengths


@pytest.mark.parametrize(
    ("toml", "least", "most", "mean"),
    [
        ("7", 7, 7, 7),
        ("[1, 1, 10, 100]", 1, 100, 28),
        ("{median = 100, sigma = 0.5, low = 1, high = 5000}", 1, 5000, 113.3),
    ],
)
def test_draws_have_limits_and_mean(toml: str, least: int, most: int, mean: float) -> None:
    draw, lengths = random.Random(1), parsed(toml)
    drawn = [draw_length(lengths, draw) for _ in range(20_000)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)


def test_lognormal_is_cut_at_both_ends() -> None:
    draw, lengths = random.Random(1), parsed("{median = 10, sigma = 1.5, low = 5, high = 30}")
    drawn = [draw_length(lengths, draw) for _ in range(1000)]
    assert (min(drawn), max(drawn)) == (5, 30)
    assert min(drawn.count(5), drawn.count(30)) > 100


@pytest.mark.parametrize(
    ("toml", "field"),
    [
        ("{median = 50, sigma = 1, low = 2, high = 9}", "median"),
        ("{median = 5, sigma = 0, low = 2, high = 9}", "sigma"),
        ("{median = 5, sigma = inf, low = 2, high = 9}", "sigma"),
        ("{median = 5, sigma = 1, low = 2}", "high"),
        ("{median = 5, sigma = 1, low = 2, high = 9, mean = 3}", "mean"),
        ("[]", "at least 1 item"),
        ("[0]", "greater than 0"),
        ("0", "greater than 0"),
        ("true", "int"),
        ('"x"', "int"),
    ],
)
def test_invalid_length_names_the_field(toml: str, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        parsed(toml)
