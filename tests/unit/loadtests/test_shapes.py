"""The courses of load: which segments there are, under which load, and what of each counts."""

import pytest

from loadtests import shapes
from loadtests.results import Segment
from loadtests.shapes import Shape


def segments(shape: Shape) -> list[Segment]:
    return list(shape)


def test_a_constant_load_is_one_segment_at_one_rate() -> None:
    assert segments(shapes.constant("open", 40.0, 60.0)) == [
        Segment(name="steady", seconds=60.0, settle=5.0, rate=(40.0, 40.0))
    ]


def test_in_a_closed_loop_loads_are_users() -> None:
    [segment] = segments(shapes.soak("closed", 8.0, 600.0))
    assert segment == Segment(name="soak", seconds=600.0, settle=5.0, users=(8, 8))
    assert segment.users is not None
    assert all(isinstance(count, int) for count in segment.users)


def test_a_ramp_counts_from_its_first_second_and_goes_in_a_straight_line() -> None:
    assert segments(shapes.ramp("open", 10.0, 200.0, 30.0)) == [
        Segment(name="ramp", seconds=30.0, rate=(10.0, 200.0))
    ]


def test_steps_are_named_by_their_load_and_each_settles() -> None:
    found = segments(shapes.step("open", [20.0, 2.5], 30.0))
    assert [(one.name, one.rate, one.settle) for one in found] == [
        ("20/s", (20.0, 20.0), 5.0),
        ("2.5/s", (2.5, 2.5), 5.0),
    ]
    assert [one.name for one in segments(shapes.step("closed", [4.0], 30.0))] == ["4 users"]


def test_a_spike_comes_back_to_where_it_began_and_all_of_it_and_of_the_recovery_counts() -> None:
    found = segments(shapes.spike("open", 20.0, 200.0, 30.0))
    assert [(one.name, one.rate, one.settle) for one in found] == [
        ("before", (20.0, 20.0), 5.0),
        ("spike", (200.0, 200.0), 0.0),
        ("after", (20.0, 20.0), 0.0),
    ]
    assert {one.seconds for one in found} == {30.0}


@pytest.mark.parametrize(("seconds", "settle"), [(10.0, 2.0), (25.0, 5.0), (3600.0, 5.0)])
def test_a_fifth_settles_but_never_more_than_five_seconds(seconds: float, settle: float) -> None:
    [segment] = segments(shapes.constant("open", 1.0, seconds))
    assert segment.settle == pytest.approx(settle)


def test_a_shape_without_a_search_finds_no_capacity() -> None:
    shape = shapes.constant("open", 1.0, 10.0)
    next(shape)
    with pytest.raises(StopIteration) as finished:
        next(shape)
    assert finished.value.value is None


def test_what_is_stopped_ends_there_under_the_load_that_it_had_come_to() -> None:
    [ramp] = shapes.until(150.0, segments(shapes.ramp("open", 10.0, 200.0, 300.0)))
    assert (ramp.seconds, ramp.rate) == (150.0, (10.0, 105.0))
    [fewer] = shapes.until(30.0, segments(shapes.ramp("closed", 100.0, 10.0, 90.0)))
    assert (fewer.seconds, fewer.users) == (30.0, (100, 70))


def test_what_is_stopped_leaves_out_what_had_not_begun_and_all_of_what_was_over() -> None:
    steps = segments(shapes.step("open", [20.0, 40.0, 80.0], 30.0))
    assert [(one.name, one.seconds, one.rate) for one in shapes.until(45.0, steps)] == [
        ("20/s", 30.0, (20.0, 20.0)),
        ("40/s", 15.0, (40.0, 40.0)),
    ]
    assert shapes.until(60.0, steps) == steps[:2]
    assert shapes.until(-0.1, steps) == []
