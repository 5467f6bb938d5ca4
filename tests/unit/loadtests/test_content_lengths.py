"""Lengths as a scenario gives them, and inputs that come again."""

import random
import tomllib
from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from loadtests.content.lengths import Choice, Fixed, Lengths, Lognormal, Repeats, Uniform

ADAPTER: TypeAdapter[Lengths] = TypeAdapter(Lengths)


def parsed(toml: str) -> Lengths:
    return ADAPTER.validate_python(tomllib.loads(f"tokens = {toml}")["tokens"])


def test_a_scenario_file_may_say_a_number_or_a_distribution() -> None:
    assert parsed("20") == Fixed(value=20)
    assert parsed('{distribution = "fixed", value = 20}') == Fixed(value=20)
    assert parsed('{distribution = "uniform", low = 2, high = 9}') == Uniform(low=2, high=9)
    assert parsed(
        '{distribution = "lognormal", median = 180, sigma = 0.8, low = 8, high = 4000}'
    ) == Lognormal(median=180, sigma=0.8, low=8, high=4000)
    assert parsed('{distribution = "choice", values = [1, 8], weights = [3, 1]}') == Choice(
        values=(1, 8), weights=(3, 1)
    )


@pytest.mark.parametrize(
    ("lengths", "least", "most"),
    [
        (Fixed(value=7), 7, 7),
        (Uniform(low=3, high=6), 3, 6),
        (Lognormal(median=180, sigma=0.8, low=8, high=4000), 8, 4000),
        # Much is cut off here, at both ends.
        (Lognormal(median=10, sigma=1.5, low=5, high=30), 5, 30),
        (Lognormal(median=3, sigma=0.3, low=1, high=9), 1, 9),
        (Choice(values=(1, 10, 100), weights=(2, 1, 1)), 1, 100),
    ],
)
def test_draws_lie_between_their_limits_and_have_the_mean(lengths: Lengths, least: int, most: int) -> None:
    draw = random.Random(1)
    drawn = [lengths.draw(draw) for _ in range(40_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(lengths.mean(), rel=0.02)
    assert min(drawn) >= least
    assert max(drawn) <= lengths.most() == most


def test_the_mean_of_a_lognormal_without_cuts_is_the_one_of_the_books() -> None:
    lengths = Lognormal(median=100, sigma=0.5, low=1, high=5000)
    assert lengths.mean() == pytest.approx(100 * 2.718281828 ** (0.5**2 / 2), rel=1e-3)


def test_both_ends_of_uniform_are_drawn() -> None:
    draw = random.Random(1)
    assert {Uniform(low=3, high=6).draw(draw) for _ in range(200)} == {3, 4, 5, 6}


def test_the_same_state_gives_the_same_draws() -> None:
    lengths = Lognormal(median=180, sigma=0.8, low=8, high=4000)
    one, other = random.Random("a"), random.Random("a")
    assert [lengths.draw(one) for _ in range(20)] == [lengths.draw(other) for _ in range(20)]


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('{distribution = "uniform", low = 9, high = 2}', "low: 9 is more than high, 2"),
        (
            '{distribution = "lognormal", median = 5, sigma = 1, low = 9, high = 2}',
            "low: 9 is more than high, 2",
        ),
        (
            '{distribution = "lognormal", median = 50, sigma = 1, low = 2, high = 9}',
            "median: 50 is not between",
        ),
        ('{distribution = "lognormal", median = 5, sigma = 0, low = 2, high = 9}', "sigma\n.*greater than 0"),
        ('{distribution = "lognormal", median = 5, sigma = inf, low = 2, high = 9}', "sigma\n.*finite"),
        (
            '{distribution = "choice", values = [1, 2], weights = [1]}',
            "weights: 2 values need as many, there are 1",
        ),
        ('{distribution = "choice", values = [], weights = []}', "values\n.*at least 1 item"),
        ('{distribution = "choice", values = [1, 2], weights = [1, 0]}', "weights.1\n.*greater than 0"),
        ('{distribution = "choice", values = [0], weights = [1]}', "values.0\n.*greater than 0"),
        ('{distribution = "zipf", low = 1}', "'zipf'.*'fixed', 'uniform', 'lognormal', 'choice'"),
        ('{distribution = "fixed", value = 1, low = 1}', "low\n.*not permitted"),
        ("0", "value\n.*greater than 0"),
        ("true", "a whole number is needed, or a table such as"),
        ('"20"', "a whole number is needed, or a table such as"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_field_and_why(toml: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        parsed(toml)


def test_repeats_do_repeat_and_the_first_are_the_most_frequent() -> None:
    repeats, draw = Repeats(zipf=1.0, distinct=1000), random.Random(1)
    counts = Counter(repeats.draw(draw) for _ in range(50_000))
    assert set(counts) <= set(range(1000))
    assert len(counts) > 950
    # 1 / (1 + 1/2 + ... + 1/1000) is 0.134.
    assert counts[0] / 50_000 == pytest.approx(0.134, abs=0.01)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.2)


def test_a_single_distinct_serial_always_comes() -> None:
    repeats, draw = Repeats(zipf=2.0, distinct=1), random.Random(1)
    assert {repeats.draw(draw) for _ in range(100)} == {0}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"zipf": 1.0, "distinct": 0}, "distinct: at least 1"),
        ({"zipf": 0.0, "distinct": 5}, "zipf: more than 0"),
    ],
)
def test_repeats_that_cannot_be_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Repeats(**arguments)
