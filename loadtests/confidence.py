"""Confidence intervals (95 %) for figures counted in intervals of time.

Replies that are near in time are not independent: one slow engine step delays many. So neighbouring intervals
are joined to batches, the batches are taken as independent, and Student's t gives the confidence interval
(method of batch means). Percentiles and shares also get Wilson's interval, which takes single replies as
independent; the wider of the two counts. Below `FEWEST` intervals there are too few batches.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from triptych.loadtests.histogram import GROWTH, Counts, merged, quantile, seconds_of
from triptych.loadtests.histogram import percentile as percentile_of

Z = 1.96
"""97.5 % quantile of the normal distribution."""
FEWEST = 8
FEWEST_BATCHES, BATCHES = 4, 8

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def percentile(times: Sequence[Counts], share: float) -> Estimate | None:
    """The `share` percentile (0 to 1) in seconds, from the times of each interval; None without times."""
    counts = merged(times)
    if not counts:
        return None
    numbers = sorted(counts)
    below = np.cumsum([[one.get(number, 0) for number in numbers] for one in times], axis=1)
    # The times whose share below could be `share`, by chance.
    off = below - share * below[:, -1:]
    likely = np.abs(off.sum(axis=0)) <= _half_width(off)
    total = sum(counts.values())
    chosen = [number for number, chance in zip(numbers, likely, strict=True) if chance]
    chosen += [quantile(counts, bound) for bound in (share, *wilson(round(share * total), total))]
    # A time can be anywhere in its bucket.
    low, high = seconds_of(min(chosen)) * GROWTH**-0.5, seconds_of(max(chosen)) * GROWTH**0.5
    return Estimate(percentile_of(counts, share), low, high)


def quotient(over: Array, under: Array) -> Estimate:
    """Sum of `over` by sum of `under`. Below `FEWEST` intervals both bounds are the value itself."""
    value = float(over.sum() / under.sum())
    half = float(_half_width(over - value * under) / under.sum())
    return Estimate(value, max(0.0, value - half), value + half)


def share_of(part: Array, whole: Array) -> Estimate:
    """The share of `part` in `whole`, both counts."""
    value, low, high = quotient(part, whole)
    least, most = wilson(int(part.sum()), int(whole.sum()))
    return Estimate(value, min(low, least), min(1.0, max(high, most)))


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of the share `count` / `total` of independent events."""
    found = stats.binomtest(count, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def ratio(over: Estimate, under: Estimate) -> Estimate:
    """Ratio of two independent figures; a bound is 0 or infinite where a figure may be 0.

    The difference of their logarithms (Donner and Zou 2012).
    """
    if not over.value or not under.value:
        only = 1.0 if over.value == under.value else math.inf if over.value else 0.0
        return Estimate(only, only, only)
    one, other = (
        Estimate(*(math.log(part) if part > 0 else -math.inf for part in its)) for its in (over, under)
    )
    return Estimate(*map(math.exp, difference(one, other)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Difference of two independent figures (Newcombe 1998)."""
    value = one.value - other.value
    down = math.hypot(one.value - one.low, other.high - other.value)
    up = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - down, value + up)


def _half_width(values: Array) -> Array:
    """Half the t interval of the sum over all intervals (first axis)."""
    if len(values) < FEWEST:
        return np.zeros(values.shape[1:])
    batches = min(BATCHES, max(FEWEST_BATCHES, len(values) // 3))
    sums = np.array([part.sum(axis=0) for part in np.array_split(values, batches)])
    half: Array = stats.t.ppf(0.975, batches - 1) * math.sqrt(batches) * sums.std(axis=0, ddof=1)
    return half
