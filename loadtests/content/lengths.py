"""Random lengths and repeats as a scenario describes them."""

import math
import random
from bisect import bisect
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Above0 = Annotated[FiniteFloat, Field(gt=0)]


class _Distribution(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fixed(_Distribution):
    """Always `value`."""

    distribution: Literal["fixed"] = "fixed"
    value: PositiveInt

    def draw(self, random: random.Random) -> int:
        return self.value


class _Between(_Distribution):
    low: PositiveInt
    high: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is more than high, {self.high}")
        return self


class Uniform(_Between):
    """Whole numbers from `low` to `high`, both included."""

    distribution: Literal["uniform"] = "uniform"

    def draw(self, random: random.Random) -> int:
        return random.randint(self.low, self.high)


class Lognormal(_Between):
    """Lognormal with `median` and `sigma`, cut to `low` and `high`."""

    distribution: Literal["lognormal"] = "lognormal"
    median: PositiveFloat
    sigma: Above0

    @model_validator(mode="after")
    def _median_inside(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"median: {self.median:g} is not between low, {self.low}, and high, {self.high}")
        return self

    def draw(self, random: random.Random) -> int:
        drawn = self.median * math.exp(min(random.gauss(0, self.sigma), 700.0))
        return self.high if drawn >= self.high else max(self.low, round(drawn))


class Choice(_Distribution):
    """One of `values`, by weight."""

    distribution: Literal["choice"] = "choice"
    values: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    weights: tuple[Above0, ...]

    @model_validator(mode="after")
    def _each_has_a_weight(self) -> Self:
        if len(self.weights) != len(self.values):
            raise ValueError(f"weights: need one for each of {len(self.values)} values")
        return self

    def draw(self, random: random.Random) -> int:
        [value] = random.choices(self.values, self.weights)
        return value


def _number_is_fixed(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"distribution": "fixed", "value": value}
    if isinstance(value, dict | _Distribution):
        return value
    raise ValueError('need a whole number or a table such as {distribution = "uniform", low = 8, high = 64}')


Lengths = Annotated[
    Annotated[Fixed | Uniform | Lognormal | Choice, Field(discriminator="distribution")],
    BeforeValidator(_number_is_fixed),
]
"""A length to draw. In a scenario file, a plain number is a `Fixed`."""


class Repeats(_Distribution):
    """Repeated inputs: of `distinct` inputs, the one of rank r has frequency r^-`zipf`."""

    distinct: PositiveInt
    zipf: Above0 = 1.0

    def cumulative(self) -> list[float]:
        """Cumulative weights by rank, for `draw_rank`."""
        return list(accumulate(rank**-self.zipf for rank in range(1, self.distinct + 1)))


def draw_rank(cumulative: list[float], random: random.Random) -> int:
    """A rank, 0 for the most frequent."""
    return bisect(cumulative, random.random() * cumulative[-1], hi=len(cumulative) - 1)
