"""Numbers, times and loads as text."""

from collections.abc import Callable

from triptych.loadtests.confidence import Estimate
from triptych.loadtests.results import Segment

NOTHING = "-"


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds < 0.9995 / factor * 1e3:
            return f"{_three(seconds * factor)} {unit}"
    return f"{_three(seconds)} s"


def number(value: float) -> str:
    """Three digits; from 10,000 on in thousands (k) or millions (M)."""
    if value < 9_999.5:
        return _three(value)
    return f"{_three(value / 1e3)}k" if value < 999.5e3 else f"{_three(value / 1e6)}M"


def share(value: float) -> str:
    """A share (0 to 1) in per cent."""
    return f"{_three(100 * value)} %"


def estimated(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value without its interval."""
    return NOTHING if estimate is None else write(estimate.value)


def interval(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value with its interval, such as "40 ms (38 ms to 43 ms)"."""
    if estimate is None:
        return NOTHING
    value, low, high = (write(part) for part in estimate)
    return value if low == high else f"{value} ({low} to {high})"


def load_of(segment: Segment) -> str:
    """For example "200 requests/s" or "10 to 200 requests/s"."""
    low, high = segment.rate
    return f"{number(low)} requests/s" if low == high else f"{number(low)} to {number(high)} requests/s"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 or not value else f"{value:.3g}"
