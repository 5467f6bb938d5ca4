"""How figures and what a run says of itself are put into words, the same on the page and in the terminal."""

import re
from collections.abc import Callable

from loadtests.estimates import Estimate
from loadtests.results import Measured, Segment

NOTHING = "-"
"""Stands where there is no figure."""

_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)


def masked(text: str) -> str:
    """Without the name and password that an address may carry."""
    return _USERINFO.sub(r"\1***@", text)


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    return f"{_three(seconds)} s"


def number(value: float) -> str:
    """Three digits; whole up to 10,000, then in thousands (k) and millions (M)."""
    if value < 9_999.5:
        return _three(value)
    if value < 999.5e3:
        return f"{_three(value / 1e3)}k"
    return f"{_three(value / 1e6)}M"


def share(value: float) -> str:
    """A share (0 to 1) in per cent; what is not none never reads as none."""
    return f"{_three(100 * value)} %" if value else "0 %"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def estimated(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value alone."""
    return NOTHING if estimate is None else write(estimate.value)


def interval(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    """The value and its 95 % interval, such as "40 ms (38 to 43 ms)"."""
    if estimate is None:
        return NOTHING
    value, low, high = (write(part) for part in estimate)
    if low == high:
        return value
    if low.split()[-1] == high.split()[-1]:
        low = low.split()[0]
    return f"{value} ({low} to {high})"


def load_of(segment: Segment) -> str:
    """Such as "200 requests/s", "10 to 200 requests/s" or "8 users"."""
    low, high, unit = loads(segment)
    return f"{number(low)} {unit}" if low == high else f"{number(low)} to {number(high)} {unit}"


def loads(segment: Segment) -> tuple[float, float, str]:
    """The load at the beginning and the end, and the unit of both."""
    if segment.rate is not None:
        return (*segment.rate, "requests/s")
    if segment.users is None:
        raise ValueError(f"segment {segment.name} has neither a rate nor users. This is a bug.")
    return (*segment.users, "users")


def peak(measured: Measured) -> float:
    """The highest load that a segment comes to, in requests a second or users."""
    return max(loads(measured.segment)[:2])
