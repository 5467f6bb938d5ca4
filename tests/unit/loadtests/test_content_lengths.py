"""Lengths as a scenario describes them."""

import random
import tomllib
from typing import Any

import pytest
from pydantic import TypeAdapter

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
