"""Shapes: the courses that a load can take, as segments one after another."""

from collections.abc import Generator, Sequence
from typing import Literal

import msgspec

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


def until(at: float, segments: Sequence[Segment]) -> list[Segment]:
    """Those that had begun `at` seconds after the first, the last of them cut off there, under the load that
    it had come to."""
    begun, start = [], 0.0
    for segment in segments:
        if at <= start:
            break
        begun.append(_cut(segment, at - start))
        start += segment.seconds
    return begun


def _cut(segment: Segment, at: float) -> Segment:
    if at >= segment.seconds:
        return segment
    cut = msgspec.structs.replace(segment, seconds=at)
    part = at / segment.seconds
    if segment.rate is not None:
        low, high = segment.rate
        cut.rate = low, low + part * (high - low)
    if segment.users is not None:
        few, many = segment.users
        cut.users = few, round(few + part * (many - few))
    return cut


def _settle(seconds: float) -> float:
    return min(SETTLE_SECONDS, SETTLE_SHARE * seconds)


def _segment(name: str, loop: Loop, low: float, high: float, seconds: float, settle: float) -> Segment:
    if loop == "open":
        return Segment(name=name, seconds=seconds, settle=settle, rate=(low, high))
    return Segment(name=name, seconds=seconds, settle=settle, users=(round(low), round(high)))
