"""What scenarios say is drawn by lot: lengths, in tokens, inputs or pixels, and which inputs come again."""

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


class _Distribution(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fixed(_Distribution):
    """Always `value`."""

    distribution: Literal["fixed"] = "fixed"
    value: PositiveInt

    def draw(self, random: random.Random) -> int:
        return self.value

    def mean(self) -> float:
        return float(self.value)

    def most(self) -> int:
        return self.value


class _Between(_Distribution):
    low: PositiveInt
    high: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is more than high, {self.high}")
        return self

    def most(self) -> int:
        return self.high


class Uniform(_Between):
    """Every whole number from `low` to `high`, both included, as often as any other."""

    distribution: Literal["uniform"] = "uniform"

    def draw(self, random: random.Random) -> int:
        return random.randint(self.low, self.high)

    def mean(self) -> float:
        return (self.low + self.high) / 2


class Lognormal(_Between):
    """Half of all are under `median`, and their logarithms have the standard deviation `sigma`.

    What is under `low` or over `high` becomes `low` or `high`.
    """

    distribution: Literal["lognormal"] = "lognormal"
    median: PositiveFloat
    sigma: Annotated[FiniteFloat, Field(gt=0)]

    @model_validator(mode="after")
    def _median_inside(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"median: {self.median:g} is not between low, {self.low}, and high, {self.high}")
        return self

    def draw(self, random: random.Random) -> int:
        drawn = self.median * math.exp(min(random.gauss(0, self.sigma), 700.0))
        return self.high if drawn >= self.high else max(self.low, round(drawn))

    def mean(self) -> float:
        """Exact: every number over `low` adds the chance that it is reached."""
        reached = (self._over(number - 0.5) for number in range(self.low + 1, self.high + 1))
        return self.low + math.fsum(reached)

    def _over(self, value: float) -> float:
        """The chance of more than `value`."""
        return math.erfc(math.log(value / self.median) / self.sigma / math.sqrt(2)) / 2


class Choice(_Distribution):
    """One of `values`, each as often as its weight says."""

    distribution: Literal["choice"] = "choice"
    values: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    weights: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _each_has_a_weight(self) -> Self:
        if len(self.weights) != len(self.values):
            raise ValueError(
                f"weights: {len(self.values)} values need as many, there are {len(self.weights)}"
            )
        return self

    def draw(self, random: random.Random) -> int:
        [value] = random.choices(self.values, self.weights)
        return value

    def mean(self) -> float:
        weighted = (value * weight for value, weight in zip(self.values, self.weights, strict=True))
        return math.fsum(weighted) / math.fsum(self.weights)

    def most(self) -> int:
        return max(self.values)


def _number_is_fixed(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"distribution": "fixed", "value": value}
    if isinstance(value, dict | _Distribution):
        return value
    raise ValueError(
        'a whole number is needed, or a table such as {distribution = "uniform", low = 8, high = 64}'
    )


Lengths = Annotated[
    Annotated[Fixed | Uniform | Lognormal | Choice, Field(discriminator="distribution")],
    BeforeValidator(_number_is_fixed),
]
"""Each has `draw(random)`, one length; `mean()`, that of all it draws, cut ends included; `most()`, the
greatest there can be. A scenario file may say a plain number for `Fixed`."""


class Repeats:
    """Serials that come again: that of rank r, from 1 to `distinct`, is as frequent as r^-`zipf`.

    Raises `ValueError` for less than one serial, or a `zipf` that is not over 0.
    """

    def __init__(self, zipf: float, distinct: int) -> None:
        if distinct < 1:
            raise ValueError(f"distinct: at least 1 is needed, not {distinct}")
        if not zipf > 0:
            raise ValueError(f"zipf: more than 0 is needed, not {zipf:g}")
        self._cumulative = list(accumulate(rank**-zipf for rank in range(1, distinct + 1)))

    def draw(self, random: random.Random) -> int:
        """A serial from 0, the most frequent, to `distinct` - 1; the same for the same state of `random`."""
        return bisect(self._cumulative, random.random() * self._cumulative[-1], hi=len(self._cumulative) - 1)
