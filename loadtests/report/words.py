"""Numbers and times as text."""

from collections.abc import Callable

from matplotlib.ticker import EngFormatter

from triptych.loadtests.confidence import Estimate

NOTHING = "-"


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    rounded = float(f"{seconds:.3g}")
    return f"{rounded:g} s" if rounded >= 1 else EngFormatter("s")(rounded)


def number(value: float) -> str:
    """Three digits; from 1,000 on in thousands (k) or millions (M)."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:g}" if rounded < 1000 else EngFormatter(sep="")(rounded)


def share(value: float) -> str:
    """A share (0 to 1) in per cent."""
    return f"{100 * value:.3g} %"


def estimated(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value without its interval."""
    return NOTHING if estimate is None else write(estimate.value)


def interval(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value with its interval, such as "40 ms (38 ms to 43 ms)"."""
    if estimate is None:
        return NOTHING
    value, low, high = (write(part) for part in estimate)
    return value if low == high else f"{value} ({low} to {high})"
