"""Shapes of a load over time, as sequences of segments (pure)."""

from collections.abc import Generator, Sequence

import msgspec

from triptych.loadtests.results import Capacity, Measured, Segment

Shape = Generator[Sequence[Segment], Sequence[Measured], Capacity | None]
"""Yields segments to go through without a gap, is sent their results, and ends with that of a search."""

LOADS: dict[str, int | None] = {"constant": 1, "step": None, "spike": 2, "soak": 1}
"""The shapes, and how many loads each takes (None: any number)."""
SETTLE_SECONDS, SETTLE_SHARE = 5.0, 0.2


def shape_of(segments: Sequence[Segment]) -> Shape:
    """A shape that does not depend on what is measured."""
    yield segments
    return None


def segments_of(shape: str, loads: Sequence[float], seconds: float) -> list[Segment]:
    """The segments of one of `LOADS`, of `seconds` each. Raises `ValueError` for a wrong number of loads."""
    wanted = LOADS[shape] or len(loads)
    if len(loads) != wanted:
        example = ",".join(["20", "200"][:wanted])
        raise ValueError(f"--shape {shape} takes {wanted} loads, such as --rate {example}")
    first, last = loads[0], loads[-1]
    settle = min(SETTLE_SECONDS, SETTLE_SHARE * seconds)
    parts = {
        "constant": [("steady", first, settle)],
        "soak": [("soak", first, settle)],
        "step": [(f"{load:g}/s", load, settle) for load in loads],
        # How the load changes is the question, so only the first part settles.
        "spike": [("before", first, settle), ("spike", last, 0.0), ("after", first, 0.0)],
    }[shape]
    return [Segment(name=name, seconds=seconds, settle=settles, rate=rate) for name, rate, settles in parts]


def until(at: float, segments: Sequence[Segment]) -> list[Segment]:
    """The segments that had started `at` seconds after the first, the last one cut off there."""
    started, start = [], 0.0
    for segment in segments:
        if at <= start:
            break
        started.append(msgspec.structs.replace(segment, seconds=min(segment.seconds, at - start)))
        start += segment.seconds
    return started
