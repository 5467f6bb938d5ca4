"""Random lengths as a scenario describes them: a number, a list of numbers, or a lognormal distribution."""

import math
import random
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, PositiveFloat, model_validator

from triptych.loadtests.toml_files import Strict

Whole = Annotated[int, Field(strict=True, gt=0)]


class Lognormal(Strict):
    """Lognormal with `median` and `sigma`, cut to `low` and `high`."""

    median: PositiveFloat
    sigma: Annotated[FiniteFloat, Field(gt=0)]
    low: Whole
    high: Whole

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"median: {self.median:g} is not between low, {self.low}, and high, {self.high}")
        return self


Lengths = Whole | Annotated[tuple[Whole, ...], Field(min_length=1)] | Lognormal
"""A fixed length, one of several with equal chances, or a distribution."""


def draw_length(lengths: Lengths, draw: random.Random) -> int:
    """The next length."""
    match lengths:
        case int():
            return lengths
        case Lognormal(median=median, sigma=sigma, low=low, high=high):
            drawn = median * math.exp(min(draw.gauss(0, sigma), 700.0))
            return high if drawn >= high else max(low, round(drawn))
        case _:
            return draw.choice(lengths)
