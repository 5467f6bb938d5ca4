"""The circuit breaker of a replica."""

from triptych.router.pool.breaker import (
    FAILURES_UNTIL_OPEN,
    LONGEST_OPEN_SECONDS,
    OPEN_SECONDS,
    Breaker,
    BreakerState,
)


def broken(breaker: Breaker, now: float) -> Breaker:
    """`breaker`, opened at `now`."""
    for _ in range(FAILURES_UNTIL_OPEN):
        breaker.failed(now, now)
    return breaker


def test_success_resets_the_count() -> None:
    breaker = Breaker()
    for now in range(10 * FAILURES_UNTIL_OPEN):
        breaker.failed(now, now)
        if now % 2:
            breaker.succeeded()
        assert breaker.state(now) is BreakerState.CLOSED


def test_concurrent_failures_count_once() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES_UNTIL_OPEN):
        breaker.failed(started=0.0, now=1.0)
    assert breaker.failures == 1


def test_failed_trials_double_the_time() -> None:
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
