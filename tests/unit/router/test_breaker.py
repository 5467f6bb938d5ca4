"""When a replica that failed is left alone, and when it is tried again."""

from router.pool.breaker import (
    FAILURES_UNTIL_OPEN,
    LONGEST_OPEN_SECONDS,
    OPEN_SECONDS,
    Breaker,
    BreakerState,
)


def broken(breaker: Breaker, now: float) -> Breaker:
    """`breaker` after as many incidents as open it, all at `now`."""
    for _ in range(FAILURES_UNTIL_OPEN):
        breaker.failed(now, now)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker()
    for now in range(FAILURES_UNTIL_OPEN):
        assert breaker.state(now) is BreakerState.CLOSED
        breaker.failed(now, now)
    assert breaker.state(FAILURES_UNTIL_OPEN - 1) is BreakerState.OPEN


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker()
    for now in range(10 * FAILURES_UNTIL_OPEN):
        breaker.failed(now, now)
        if now % 2:
            breaker.succeeded()
        assert breaker.state(now) is BreakerState.CLOSED


def test_batches_that_were_in_flight_together_are_one_incident() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES_UNTIL_OPEN):
        breaker.failed(started=0.0, now=1.0)
    assert breaker.failures == 1


def test_one_trial_is_let_through_when_its_time_is_over() -> None:
    breaker = broken(Breaker(), 0.0)
    assert breaker.state(OPEN_SECONDS * 0.99) is BreakerState.OPEN
    assert breaker.state(OPEN_SECONDS) is BreakerState.HALF_OPEN
    breaker.succeeded()
    assert breaker.state(OPEN_SECONDS) is BreakerState.CLOSED


def test_each_failed_trial_doubles_the_time_up_to_a_limit() -> None:
    breaker = broken(Breaker(), 0.0)
    times = []
    for _ in range(12):
        now = breaker.open_until
        breaker.failed(now, now)
        times.append(breaker.open_until - now)
    assert times[:3] == [2 * OPEN_SECONDS, 4 * OPEN_SECONDS, 8 * OPEN_SECONDS]
    assert times[-1] == LONGEST_OPEN_SECONDS
    breaker.succeeded()
    broken(breaker, 1000.0)
    assert breaker.open_until == 1000.0 + OPEN_SECONDS
