"""What the harness says of itself, with clocks and a /proc of our own."""

import os
import time
from pathlib import Path

import pytest

from loadtests.monitor import MachineMeter, Monitor

TICKS = os.sysconf("SC_CLK_TCK")


def machine(proc: Path, *fields: int) -> None:
    """user, nice, system, idle, iowait, irq, softirq, steal; time of guests follows."""
    (proc / "stat").write_text("cpu  " + " ".join(map(str, fields)) + " 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n")


def test_a_process_says_which_share_of_a_core_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"monotonic": 100.0, "process_time": 7.0}
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])
    monitor = Monitor()
    assert monitor.read("process 1").cpu == 0.0
    now.update(monotonic=110.0, process_time=11.0)
    assert monitor.read("process 1").cpu == pytest.approx(0.4)


def test_what_happens_to_one_request_in_a_hundred_does_not_count_and_to_two_does() -> None:
    for bad, expected in ((1, 0.001), (2, 0.5)):
        monitor = Monitor()
        for number in range(100):
            monitor.late(0.5 if number < bad else 0.001)
        assert monitor.read("process 1").late == pytest.approx(expected, rel=0.01)


def test_the_loop_is_as_late_as_it_came_round_after_it_was_due() -> None:
    monitor = Monitor()
    monitor.beat(now=20.25, due=20.0)
    process = monitor.read("process 1")
    assert process.lag == pytest.approx(0.25, rel=0.01)
    assert process.late == 0.0


def test_what_comes_early_is_not_late() -> None:
    monitor = Monitor()
    monitor.beat(now=19.9, due=20.0)
    monitor.late(-0.1)
    process = monitor.read("process 1")
    assert max(process.lag, process.late) < 1e-4


def test_a_process_that_was_never_late_and_sent_nothing_says_so() -> None:
    process = Monitor().read("process 1")
    assert (process.name, process.lag, process.late) == ("process 1", 0.0, 0.0)


def test_the_machine_is_as_busy_as_its_processors_were_since_the_meter_was_made(tmp_path: Path) -> None:
    machine(tmp_path, 1000, 0, 1000, 5000, 0, 0, 0, 0)
    meter = MachineMeter(tmp_path)
    machine(tmp_path, 1010, 2, 1005, 5060, 10, 1, 2, 10)
    # What a hypervisor gave to others is no time that anybody here could have had.
    assert meter.read() == pytest.approx(30 / 100)


def test_where_the_kernel_does_not_say_how_busy_it_is_nothing_is_made_up(tmp_path: Path) -> None:
    assert MachineMeter(tmp_path).read() is None
    machine(tmp_path, 1, 0, 0, 1, 0, 0, 0, 0)
    meter = MachineMeter(tmp_path)
    assert meter.read() is None, "no time has passed"
    (tmp_path / "stat").unlink()
    assert meter.read() is None
