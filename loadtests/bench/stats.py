"""Percentiles."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile `share` (0 to 1) by nearest rank. Raises `ValueError` without values."""
    if not values:
        raise ValueError("nothing was measured")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
