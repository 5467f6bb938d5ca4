"""How busy and how late a process says it was."""

import time
from collections import namedtuple

import pytest

from triptych.loadtests.monitor import Monitor, busy_share

Times = namedtuple("Times", ("user", "system", "idle", "iowait", "steal", "guest"))


def test_share_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"monotonic": 100.0, "process_time": 7.0}
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])
    monitor = Monitor()
    assert monitor.read("process 1").cpu == 0.0
    now.update(monotonic=110.0, process_time=11.0)
    assert monitor.read("process 1").cpu == pytest.approx(0.4)


@pytest.mark.parametrize(("bad", "late"), [(1, 0.001), (2, 0.5)])
def test_lateness_is_the_99th_percentile(bad: int, late: float) -> None:
    monitor = Monitor()
    for number in range(100):
        monitor.late(0.5 if number < bad else 0.001)
    assert monitor.read("process 1").late == pytest.approx(late, rel=0.01)


def test_lag_is_how_late_the_loop_ran() -> None:
    monitor = Monitor()
    monitor.lag(0.25)
    process = monitor.read("process 1")
    assert process.lag == pytest.approx(0.25, rel=0.01)
    assert process.late == 0.0


def test_busy_share_counts_stolen_time_and_not_guests_twice() -> None:
    before, now = Times(1000, 1000, 5000, 0, 0, 0), Times(1012, 1008, 5060, 10, 10, 7)
    assert busy_share(before, now) == pytest.approx(30 / 100)
    assert busy_share(before, before) == 0.0
