"""Confidence intervals (95 %) of figures that are gathered in intervals of time (pure).

What is near in time is not independent: one slow step of an engine makes many replies slow. So confidence
comes from a bootstrap over blocks of neighbouring intervals; for percentiles and shares joined with what
independent replies would give, whichever is wider. With fewer than `FEWEST` intervals there are no blocks to
draw from, and the latter stands alone: it is too narrow where replies are slow together.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.histogram import GROWTH, Counts, merged, seconds_of
from loadtests.histogram import percentile as percentile_of

RESAMPLES = 400
FEWEST = 8
# Of the normal distribution, for 95 %.
Z = 1.96

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A figure, and between what it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def percentile(times: Sequence[Counts], share: float) -> Estimate | None:
    """The `share` percentile (0 to 1) of all, in seconds, from the times counted in each interval; None
    where there are none."""
    counts = merged(times)
    if not counts:
        return None
    value = percentile_of(counts, share)
    low, high = _order_statistics(counts, share)
    if len(times) >= FEWEST:
        found = _drawn_percentile(times, sorted(counts), share, value)
        low, high = min(low, found.low), max(high, found.high)
    # A time stands for its bucket's middle, and may be anywhere in it.
    return Estimate(value, min(low, value) / GROWTH**0.5, max(high, value) * GROWTH**0.5)


def quotient(over: Array, under: Array) -> Estimate:
    """Of the sums over all intervals. With fewer than `FEWEST`, both ends are the value itself."""
    value = float(over.sum() / under.sum())
    if len(over) < FEWEST:
        return Estimate(value, value, value)
    drawn, stretch = _resamples(over - value * under)
    # Where a resample has nothing under the line, it has nothing over it.
    found = _around(value, (drawn @ over) / np.maximum(drawn @ under, 1e-9), stretch)
    return found._replace(low=max(0.0, found.low))


def share_of(part: Array, whole: Array) -> Estimate:
    """How many of all are of the part; joined with Wilson's interval, which is none too narrow where none or
    few are."""
    found = quotient(part, whole)
    count, total = float(part.sum()), float(whole.sum())
    square = Z * Z
    middle = (found.value + square / (2 * total)) / (1 + square / total)
    spread = found.value * (total - count) / (total * total) + square / (4 * total * total)
    half = Z * math.sqrt(max(0.0, spread)) / (1 + square / total)
    low, high = max(0.0, min(found.low, middle - half)), min(1.0, max(found.high, middle + half))
    return Estimate(found.value, min(low, found.value), max(high, found.value))


def ratio(over: Estimate, under: Estimate) -> Estimate:
    """Of two independent figures, both over 0; a bound is infinite or 0 where one of them may be 0.

    Each side's distance to its bound counts by itself, as those of a p99 differ (Donner and Zou 2012).
    """
    value = over.value / under.value
    down = math.hypot(_log(over.value, over.low), _log(under.high, under.value))
    up = math.hypot(_log(over.high, over.value), _log(under.value, under.low))
    return Estimate(value, value * math.exp(-down), value * math.exp(up))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Of two independent figures, likewise (Newcombe 1998)."""
    value = one.value - other.value
    down = math.hypot(one.value - one.low, other.high - other.value)
    up = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - down, value + up)


def _drawn_percentile(
    times: Sequence[Counts], numbers: Sequence[int], share: float, value: float
) -> Estimate:
    places = {number: place for place, number in enumerate(numbers)}
    matrix = np.zeros((len(times), len(numbers)))
    for row, its in zip(matrix, times, strict=True):
        row[[places[number] for number in its]] = list(its.values())
    middles = np.log([seconds_of(number) for number in numbers])
    below = matrix[:, middles <= math.log(value)].sum(axis=1)
    drawn, stretch = _resamples(below - share * matrix.sum(axis=1))
    cumulated = np.cumsum(drawn @ matrix, axis=1)
    cumulated = cumulated[cumulated[:, -1] > 0]
    ranks = np.maximum(1, np.ceil(share * cumulated[:, -1] - 1e-9))
    found = _around(math.log(value), middles[(cumulated >= ranks[:, None]).argmax(axis=1)], stretch)
    return Estimate(value, math.exp(found.low), math.exp(found.high))


def _resamples(deviations: Array) -> tuple[Array, float]:
    """How often each interval is in each resample, (`RESAMPLES`, intervals), and by how much a figure's
    spread over them is too narrow.

    `deviations` are by how much each interval is off from what the figure would have it be. Of few blocks
    the spread is too narrow as that of few numbers is, by Student's factor.
    """
    count = len(deviations)
    length = _block(deviations)
    blocks = count / length
    return _times_drawn(count, length), _student(blocks - 1) / Z * math.sqrt(blocks / (blocks - 1))


def _block(deviations: Array) -> int:
    """How many neighbouring intervals are drawn together: the more, the more alike neighbours are.

    The length with the least error of a variance where likeness fades evenly (Hall, Horowitz and Jing 1995);
    at least 2 and the cube root of how many there are, and at most a quarter of these.
    """
    count = len(deviations)
    centred = deviations - deviations.mean()
    squares = float(centred @ centred)
    alike = float(centred[1:] @ centred[:-1]) / squares if squares else 0.0
    # Of few intervals they look less alike than they are.
    alike = min(0.95, max(0.0, alike + (1 + 3 * alike) / count))
    length = math.cbrt(1.5 * count * (2 * alike / (1 - alike**2)) ** 2)
    return min(max(2, round(max(length, math.cbrt(count)))), count // 4)


@lru_cache(maxsize=64)
def _times_drawn(count: int, length: int) -> Array:
    """Blocks of `length` begin anywhere and go round at the end. The same each time."""
    blocks = math.ceil(count / length)
    starts = np.random.default_rng(count).integers(0, count, (RESAMPLES, blocks))
    places = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count] % count
    each = (places + count * np.arange(RESAMPLES)[:, None]).ravel()
    return np.bincount(each, minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(float)


def _around(value: float, resampled: Array, stretch: float) -> Estimate:
    low, high = np.quantile(resampled, (0.025, 0.975))
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    return Estimate(value, value - stretch * below, value + stretch * above)


def _student(freedom: float) -> float:
    """The two-sided 95 % quantile of Student's distribution, within 4 % from 3 on, as four blocks have."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def _order_statistics(counts: Counts, share: float) -> tuple[float, float]:
    """Between which times the percentile of independent ones lies, by how many lie below it."""
    half = Z * math.sqrt(share * (1 - share) / sum(counts.values()))
    return (
        percentile_of(counts, max(0.0, share - half)),
        percentile_of(counts, min(1.0, share + half)),
    )


def _log(over: float, under: float) -> float:
    return math.log(over / under) if under > 0 else math.inf
