"""Shapes of a load: their segments, and where they are cut off."""

import pytest

from triptych.loadtests.results import Segment
from triptych.loadtests.shapes import segments_of, until


def loads(segments: list[Segment]) -> list[tuple[object, ...]]:
    return [(one.name, one.settle, one.rate) for one in segments]


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ("constant", [40.0], [("steady", 5.0, 40.0)]),
        ("soak", [8.0], [("soak", 5.0, 8.0)]),
        ("step", [20.0, 2.5], [("20/s", 5.0, 20.0), ("2.5/s", 5.0, 2.5)]),
        (
            "spike",
            [20.0, 200.0],
            [("before", 5.0, 20.0), ("spike", 0.0, 200.0), ("after", 0.0, 20.0)],
        ),
    ],
)
def test_shape_has_its_segments(shape: str, given: list[float], expected: object) -> None:
    found = segments_of(shape, given, 30.0)
    assert loads(found) == expected
    assert {one.seconds for one in found} == {30.0}


def test_stopped_steps_keep_what_had_started() -> None:
    steps = segments_of("step", [20.0, 40.0, 80.0], 30.0)
    assert [(one.name, one.seconds) for one in until(45.0, steps)] == [("20/s", 30.0), ("40/s", 15.0)]
    assert until(60.0, steps) == steps[:2]
    assert until(-0.1, steps) == []
