"""Holding work for a pool without replicas."""

from math import inf

from tests.unit.router.items import make_request
from triptych.router.pool.hold import Hold


def test_jobs_are_held_for_equal_times() -> None:
    hold = Hold(10.0)
    one, two, three = (make_request([1, 1]) for _ in range(3))
    assert hold.ends_at == inf
    hold.begin(one.items, 0.0)
    hold.begin([*two.items, *one.items], 4.0)
    hold.begin(three.items, 4.0)
    hold.forget(three)
    assert hold.ends_at == 10.0
    assert hold.pop_expired(9.99) == []
    assert hold.pop_expired(10.0) == [one]
    assert hold.ends_at == 14.0
    assert hold.pop_expired(14.0) == [two]
    assert hold.ends_at == inf
