"""The pace of a replica, the comparison with others, and the drain rate of a queue."""

import pytest

from triptych.router.pool.pace import (
    BATCHES_UNTIL_JUDGED,
    SLOW,
    SLOW_NO_MORE,
    TOKENS_OF_A_CALL,
    DrainRate,
    Pace,
)


def pace_of(seconds_per_token: float, batches: int = BATCHES_UNTIL_JUDGED) -> Pace:
    pace = Pace()
    go_on(pace, seconds_per_token, batches)
    return pace


def go_on(pace: Pace, seconds_per_token: float, batches: int = 100) -> None:
    for _ in range(batches):
        pace.observe(1000, seconds_per_token * (1000 + TOKENS_OF_A_CALL))


def test_pace_follows_the_last_batches() -> None:
    pace = pace_of(0.001, 3)
    assert pace.seconds_per_token == pytest.approx(0.001)
    go_on(pace, 0.005)
    assert pace.seconds_per_token == pytest.approx(0.005, rel=0.01)
    assert pace.seconds(500) == pytest.approx(0.005 * (500 + TOKENS_OF_A_CALL), rel=0.01)


@pytest.mark.parametrize(("fixed", "per_token"), [(0.0, 40e-6), (0.01, 40e-6), (0.01, 0.0)])
def test_small_batches_do_not_look_slow(fixed: float, per_token: float) -> None:
    """Whether batches queue in the engine, share its steps, or take a constant time."""
    slow, other = pace_of(1.0), Pace()
    assert slow.compare([pace_of(0.001)])
    for _ in range(100):
        # Short queries: four lanes in use at the other replica, one at the slow one.
        other.observe(80, fixed + per_token * (80 + TOKENS_OF_A_CALL))
        slow.observe(20, fixed + per_token * (20 + TOKENS_OF_A_CALL))
    assert slow.compare([other])
    assert not slow.slow


@pytest.mark.parametrize(("fixed", "per_token"), [(0.003, 12e-6), (0.015, 5e-6)])
def test_fixed_time_is_estimated(fixed: float, per_token: float) -> None:
    pace = Pace()
    for number in range(50):
        tokens = (20, 400, 60)[number % 3]
        pace.observe(tokens, fixed + per_token * tokens)
    assert pace.tokens_until_twice() == pytest.approx(fixed / per_token, rel=0.01)


def test_slow_has_hysteresis() -> None:
    slow, others = pace_of(SLOW * 0.0011), [pace_of(0.001), pace_of(0.001)]
    assert slow.compare(others)
    assert slow.slow
    go_on(slow, 0.001 * (SLOW + SLOW_NO_MORE) / 2)
    assert not slow.compare(others)
    assert slow.slow
    go_on(slow, 0.001)
    assert slow.compare(others)
    assert not slow.slow


def test_slow_needs_enough_batches_and_others() -> None:
    assert not pace_of(1.0, BATCHES_UNTIL_JUDGED - 1).compare([pace_of(0.001)])
    assert not pace_of(1.0).compare([pace_of(0.001, BATCHES_UNTIL_JUDGED - 1)])
    assert not pace_of(1.0).compare([])


def drained(rate: DrainRate, start: float, seconds: float, per_second: int) -> float:
    """Drain `per_second` tokens for `seconds` while others wait; returns the time after."""
    rate.observe(0, start, waiting=True)
    for step in range(1, round(10 * seconds) + 1):
        rate.observe(per_second // 10, start + step / 10, waiting=True)
    return start + seconds


def test_rate_is_over_the_last_seconds_in_which_items_wait() -> None:
    rate = DrainRate()
    now = drained(rate, 0.0, 5, per_second=1000)
    rate.observe(0, now, waiting=False)
    rate.observe(10, now + 3600, waiting=False)
    now += 3601
    assert rate.per_second(now) == pytest.approx(1000, rel=0.1)
    now = drained(rate, now, 30, per_second=200)
    assert rate.per_second(now) == pytest.approx(200, rel=0.1)
    without_progress = rate.per_second(now + 10)
    assert without_progress is not None
    assert without_progress < 60


def test_rate_of_long_items_is_steady() -> None:
    rate, seconds = DrainRate(), 15
    rate.observe(0, 0.0, waiting=True)
    for number in range(1, 20):
        done = number * seconds
        rate.observe(1000 * seconds, done, waiting=True, took=seconds)
        if number > DrainRate.FEWEST:
            for later in range(seconds):
                assert rate.per_second(done + later) == pytest.approx(1000, rel=0.5)


@pytest.mark.parametrize("beside", [0, 500])
def test_rate_counts_the_whole_time_of_a_long_item(beside: int) -> None:
    rate, seconds = DrainRate(), 60
    now = drained(rate, 0.0, 30, per_second=1000)
    if beside:
        drained(rate, now, seconds, per_second=beside)
    now += seconds
    rate.observe((1000 - beside) * seconds, now, waiting=True, took=seconds)
    assert rate.per_second(now) == pytest.approx(1000, rel=0.1)
    now = drained(rate, now, 30, per_second=1000)
    assert rate.per_second(now) == pytest.approx(1000, rel=0.1)


def test_rate_needs_enough_time_and_items() -> None:
    rate = DrainRate()
    assert rate.per_second(100.0) is None
    now = drained(rate, 0.0, DrainRate.SHORTEST / 2, per_second=1000)
    assert rate.per_second(now) is None
    rate = DrainRate()
    rate.observe(0, 0.0, waiting=True)
    for number in range(1, DrainRate.FEWEST + 1):
        rate.observe(10, 10.0 * number, waiting=True)
        assert (rate.per_second(10.0 * number) is None) is (number < DrainRate.FEWEST)
