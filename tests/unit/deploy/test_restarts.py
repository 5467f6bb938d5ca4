"""When a child is started again, and when no more."""

from deploy.local.restarts import Deaths, RestartPolicy

POLICY = RestartPolicy(first_delay_s=1, max_delay_s=5, unready_deaths=3, deaths=6, window_s=100)


def test_the_wait_doubles_up_to_its_bound() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(float(t), was_ready=True) for t in range(5)] == [1, 2, 4, 5, 5]


def test_old_deaths_are_forgotten() -> None:
    deaths = Deaths(POLICY)
    assert {deaths.delay_after(t * 101.0, was_ready=True) for t in range(50)} == {1}


def test_it_gives_up_at_too_many_deaths_within_the_window() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(float(t), was_ready=True) is None for t in range(6)] == [False] * 5 + [True]


def test_it_gives_up_sooner_on_what_never_was_ready() -> None:
    deaths = Deaths(POLICY)
    assert [deaths.delay_after(float(t), was_ready=False) is None for t in range(3)] == [False, False, True]
