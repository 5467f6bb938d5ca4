"""Histogram of times with buckets that grow by 2 %: small, mergeable, and exact to 1 %."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

GROWTH = 1.02
LEAST_SECONDS = 1e-5
_LOG_GROWTH = math.log(GROWTH)

# A float holds each exactly, and the time of each bucket.
Count = Annotated[int, Meta(ge=0, le=10**15)]
Counts = dict[Annotated[int, Meta(ge=0, le=2000)], Count]
"""Number of times in each bucket, by the bucket's number."""


def bucket(seconds: float) -> int:
    """The bucket of a time. Times up to `LEAST_SECONDS` share bucket 0."""
    if seconds <= LEAST_SECONDS:
        return 0
    return math.ceil(math.log(seconds / LEAST_SECONDS) / _LOG_GROWTH)


def add(counts: Counts, seconds: float) -> None:
    """Count a time."""
    number = bucket(seconds)
    counts[number] = counts.get(number, 0) + 1


def seconds_of(number: int) -> float:
    """The middle of a bucket, in seconds."""
    return LEAST_SECONDS * GROWTH ** (number - 0.5) if number else LEAST_SECONDS


def merged(many: Iterable[Mapping[int, int]]) -> Counts:
    """The sum of several histograms."""
    total: Counter[int] = Counter()
    for counts in many:
        total.update(counts)
    return dict(total)


def quantile(counts: Mapping[int, int], share: float) -> int:
    """The bucket of the `share` quantile (0 to 1, nearest rank) of at least one time."""
    rank = max(1, math.ceil(share * sum(counts.values()) - 1e-9))
    for number in sorted(counts):
        rank -= counts[number]
        if rank <= 0:
            break
    return number


def percentile(counts: Mapping[int, int], share: float) -> float:
    """`quantile`, in seconds."""
    return seconds_of(quantile(counts, share))


def mean(counts: Mapping[int, int]) -> float:
    """The mean of at least one time, in seconds."""
    return sum(seconds_of(number) * count for number, count in counts.items()) / sum(counts.values())
