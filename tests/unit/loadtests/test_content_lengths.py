"""Lengths and repeats as a scenario describes them."""

import random
import tomllib
from collections import Counter

import pytest
from pydantic import TypeAdapter, ValidationError

from triptych.loadtests.content.lengths import Choice, Fixed, Lengths, Lognormal, Repeats, Uniform, draw_rank

ADAPTER: TypeAdapter[Lengths] = TypeAdapter(Lengths)


def parsed(toml: str) -> Lengths:
    return ADAPTER.validate_python(tomllib.loads(f"tokens = {toml}")["tokens"])


@pytest.mark.parametrize(
    ("toml", "lengths"),
    [
        ("20", Fixed(value=20)),
        ('{distribution = "fixed", value = 20}', Fixed(value=20)),
        ('{distribution = "uniform", low = 2, high = 9}', Uniform(low=2, high=9)),
        (
            '{distribution = "lognormal", median = 180, sigma = 0.8, low = 8, high = 4000}',
            Lognormal(median=180, sigma=0.8, low=8, high=4000),
        ),
        (
            '{distribution = "choice", values = [1, 8], weights = [3, 1]}',
            Choice(values=(1, 8), weights=(3, 1)),
        ),
    ],
)
def test_number_or_distribution_is_read(toml: str, lengths: Lengths) -> None:
    assert parsed(toml) == lengths


@pytest.mark.parametrize(
    ("lengths", "least", "most", "mean"),
    [
        (Fixed(value=7), 7, 7, 7),
        (Uniform(low=3, high=6), 3, 6, 4.5),
        (Lognormal(median=100, sigma=0.5, low=1, high=5000), 1, 5000, 113.3),
        (Choice(values=(1, 10, 100), weights=(2, 1, 1)), 1, 100, 28),
    ],
)
def test_draws_have_limits_and_mean(lengths: Lengths, least: int, most: int, mean: float) -> None:
    draw = random.Random(1)
    drawn = [lengths.draw(draw) for _ in range(20_000)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)


def test_lognormal_is_cut_at_both_ends() -> None:
    draw = random.Random(1)
    lengths = Lognormal(median=10, sigma=1.5, low=5, high=30)
    counts = Counter(lengths.draw(draw) for _ in range(1000))
    assert min(counts) == 5
    assert max(counts) == 30
    assert min(counts[5], counts[30]) > 100


@pytest.mark.parametrize(
    ("toml", "field"),
    [
        ('{distribution = "uniform", low = 9, high = 2}', "low"),
        ('{distribution = "lognormal", median = 50, sigma = 1, low = 2, high = 9}', "median"),
        ('{distribution = "lognormal", median = 5, sigma = 0, low = 2, high = 9}', "sigma"),
        ('{distribution = "lognormal", median = 5, sigma = inf, low = 2, high = 9}', "sigma"),
        ('{distribution = "choice", values = [1, 2], weights = [1]}', "weights"),
        ('{distribution = "choice", values = [], weights = []}', "values"),
        ('{distribution = "choice", values = [0], weights = [1]}', "values"),
        ('{distribution = "zipf", low = 1}', "zipf"),
        ('{distribution = "fixed", value = 1, low = 1}', "low"),
        ("0", "value"),
        ("true", "whole number"),
        ('"20"', "whole number"),
    ],
)
def test_invalid_length_names_the_field(toml: str, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        parsed(toml)


def test_repeats_follow_zipf() -> None:
    draw, cumulative = random.Random(1), Repeats(distinct=1000).cumulative()
    counts = Counter(draw_rank(cumulative, draw) for _ in range(50_000))
    assert set(counts) <= set(range(1000))
    # 1 / (1 + 1/2 + ... + 1/1000) is 0.134.
    assert counts[0] / 50_000 == pytest.approx(0.134, abs=0.01)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.2)
