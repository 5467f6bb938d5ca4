"""Times counted in buckets that grow by two per cent: any number in little memory, and they add up."""

import math
from collections.abc import Iterable, Mapping

# A time stands for its bucket's middle, so it is off by one per cent at most.
GROWTH = 1.02
LEAST_SECONDS = 1e-5
_LOG_GROWTH = math.log(GROWTH)

Counts = dict[int, int]
"""How many times fell into each bucket, by its number."""


def bucket(seconds: float) -> int:
    """The number of the bucket for a time; all up to `LEAST_SECONDS` share the first."""
    if seconds <= LEAST_SECONDS:
        return 0
    return math.ceil(math.log(seconds / LEAST_SECONDS) / _LOG_GROWTH)


def seconds_of(number: int) -> float:
    """The middle of a bucket, in seconds."""
    return LEAST_SECONDS * GROWTH ** (number - 0.5) if number else LEAST_SECONDS


def merged(many: Iterable[Mapping[int, int]]) -> Counts:
    """All of them together."""
    total: Counts = {}
    for counts in many:
        for number, count in counts.items():
            total[number] = total.get(number, 0) + count
    return total


def percentile(counts: Mapping[int, int], share: float) -> float:
    """The least time, in seconds, that at least `share` (0 to 1) of all are not above (nearest rank).

    Raises `ValueError` where nothing was counted.
    """
    total = sum(counts.values())
    if not total:
        raise ValueError("nothing was counted")
    rank = max(1, math.ceil(share * total))
    for number in sorted(counts):
        rank -= counts[number]
        if rank <= 0:
            return seconds_of(number)
    raise AssertionError("ranks end where the counts do")


def mean(counts: Mapping[int, int]) -> float:
    """In seconds. Raises `ValueError` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        raise ValueError("nothing was counted")
    return sum(seconds_of(number) * count for number, count in counts.items()) / total
