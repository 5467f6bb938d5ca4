"""How busy and how late a process says it was."""

import pytest

from triptych.loadtests.monitor import Monitor


@pytest.mark.parametrize(("bad", "late"), [(1, 0.001), (2, 0.5)])
def test_lateness_is_the_99th_percentile(bad: int, late: float) -> None:
    monitor = Monitor()
    for number in range(100):
        monitor.late(0.5 if number < bad else 0.001)
    monitor.lag(0.25)
    process = monitor.read("process 1")
    assert process.late == pytest.approx(late, rel=0.01)
    assert process.lag == pytest.approx(0.25, rel=0.01)


def test_busy_process_uses_a_core() -> None:
    monitor = Monitor()
    assert sum(range(5_000_000))
    # Others may hold the core for a while.
    assert 0.05 < monitor.read("process 1").cpu < 1.5
    assert 0 < monitor.machine_cpu() <= 1
