"""What is said of the requests of one run: percentiles, and how far off they may be."""

import math
from collections.abc import Sequence

import numpy as np

from loadtests.bench.stats import percentile as nearest_rank

BLOCKS = 10
# 95 % of Student's distribution with BLOCKS - 1 degrees of freedom.
STUDENT = 2.26


def percentile(values: Sequence[float], share: float) -> float:
    """`loadtests.bench.stats.percentile`, but NaN for none."""
    return nearest_rank(values, share) if values else math.nan


def uncertainty(values: Sequence[float], share: float) -> float:
    """Half of the 95 % confidence interval of a percentile of values in the order of time.

    By blocks: neighbours in time wait for each other, so the requests are no independent samples, but the
    percentiles of BLOCKS long stretches nearly are. NaN for fewer than 100 values.
    """
    if len(values) < 10 * BLOCKS:
        return math.nan
    blocks = [percentile(list(block), share) for block in np.array_split(np.asarray(values), BLOCKS)]
    return float(STUDENT * np.std(blocks, ddof=1) / math.sqrt(BLOCKS))
