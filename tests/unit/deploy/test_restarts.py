"""How long a child that died waits for its next start."""

from deploy.local.restarts import Deaths, RestartPolicy

POLICY = RestartPolicy(first_delay_s=1, max_delay_s=5, window_s=100)


def test_the_delay_doubles_up_to_its_cap() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(0.0) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert deaths.count == 5


def test_a_child_that_never_stays_is_backed_off_for_ever() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(99.0) for _ in range(5000)][-1] == 5


def test_a_child_that_served_for_the_window_starts_over() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(served) for served in (0.0, 0.0, 100.0, 0.0)] == [1, 2, 1, 2]
    assert deaths.count == 2
