"""Shapes: the courses that a load can take, as segments one after another."""

from collections.abc import Generator, Sequence
from typing import Literal

from loadtests.results import Capacity, Measured, Segment

Loop = Literal["open", "closed"]
Shape = Generator[Segment, Measured, Capacity | None]
"""Yields segments, is sent what was measured in each, and may return a capacity.

One that does not look at what it is sent can be listed beforehand."""

SETTLE_SECONDS, SETTLE_SHARE = 5.0, 0.2


def constant(loop: Loop, load: float, seconds: float) -> Shape:
    """One load."""
    yield _segment("steady", loop, load, load, seconds, _settle(seconds))
    return None


def soak(loop: Loop, load: float, seconds: float) -> Shape:
    """One load for long: what grows?"""
    yield _segment("soak", loop, load, load, seconds, _settle(seconds))
    return None


def ramp(loop: Loop, low: float, high: float, seconds: float) -> Shape:
    """From one load to another in a straight line."""
    yield _segment("ramp", loop, low, high, seconds, 0.0)
    return None


def step(loop: Loop, loads: Sequence[float], seconds: float) -> Shape:
    """One load after another, `seconds` each."""
    unit = "/s" if loop == "open" else " users"
    for load in loads:
        yield _segment(f"{load:g}{unit}", loop, load, load, seconds, _settle(seconds))
    return None


def spike(loop: Loop, base: float, peak: float, seconds: float) -> Shape:
    """A base load, a peak, and the base again, `seconds` each. Nothing settles: how it changes is the
    question."""
    yield _segment("before", loop, base, base, seconds, _settle(seconds))
    yield _segment("spike", loop, peak, peak, seconds, 0.0)
    yield _segment("after", loop, base, base, seconds, 0.0)
    return None


def _settle(seconds: float) -> float:
    return min(SETTLE_SECONDS, SETTLE_SHARE * seconds)


def _segment(name: str, loop: Loop, low: float, high: float, seconds: float, settle: float) -> Segment:
    if loop == "open":
        return Segment(name=name, seconds=seconds, settle=settle, rate=(low, high))
    return Segment(name=name, seconds=seconds, settle=settle, users=(round(low), round(high)))
