"""CPU time of process trees, over a /proc of our own."""

import os
from pathlib import Path

import pytest

from loadtests.bench.cpu import Meter, own_seconds, tree_seconds

TICKS = os.sysconf("SC_CLK_TCK")


def write(
    proc: Path, pid: int, parent: int, own: tuple[int, int], waited: tuple[int, int] = (0, 0), name: str = "x"
) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = [f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0", *map(str, (*own, *waited)), "20 0 1 0 0\n"]
    (proc / str(pid) / "stat").write_text(" ".join(fields))


def write_machine(proc: Path, *fields: int) -> None:
    (proc / "stat").write_text("cpu  " + " ".join(map(str, fields)) + " 0 0\ncpu0 0\n")


def test_a_tree_is_all_below_and_no_other(tmp_path: Path) -> None:
    write(tmp_path, 10, 1, (100, 50))
    write(tmp_path, 11, 10, (20, 10))
    write(tmp_path, 12, 11, (3, 2))
    write(tmp_path, 13, 1, (1000, 1000))
    assert tree_seconds(10, tmp_path) == 185 / TICKS
    assert own_seconds(10, tmp_path) == 150 / TICKS


def test_a_process_that_ends_takes_no_time_with_it(tmp_path: Path) -> None:
    write(tmp_path, 10, 1, (100, 0))
    write(tmp_path, 11, 10, (20, 10))
    before = tree_seconds(10, tmp_path)
    (tmp_path / "11" / "stat").unlink()
    (tmp_path / "11").rmdir()
    write(tmp_path, 10, 1, (100, 0), waited=(20, 10))
    assert tree_seconds(10, tmp_path) == before


def test_a_name_may_hold_spaces_and_parentheses(tmp_path: Path) -> None:
    write(tmp_path, 10, 1, (7, 5), name="a) S 99 (b")
    assert tree_seconds(10, tmp_path) == 12 / TICKS


def test_a_tree_that_is_gone_has_taken_nothing(tmp_path: Path) -> None:
    assert tree_seconds(10, tmp_path) == 0


def test_a_meter_tells_groups_from_the_rest_of_the_machine(tmp_path: Path) -> None:
    write(tmp_path, os.getpid(), 1, (0, 0))
    write(tmp_path, 10, 1, (100, 0))
    # user, nice, system, idle, iowait, irq, softirq, steal
    write_machine(tmp_path, 100, 0, 0, 100, 0, 0, 0, 0)
    meter = Meter({"server": [10]}, tmp_path)
    write(tmp_path, os.getpid(), 1, (5, 5))
    write(tmp_path, 10, 1, (130, 10))
    write_machine(tmp_path, 180, 0, 0, 200, 0, 0, 0, 20)
    spent = meter.read()
    assert spent.groups == pytest.approx({"server": 40 / TICKS, Meter.GENERATOR: 10 / TICKS})
    assert spent.elsewhere == pytest.approx(30 / TICKS)
    assert spent.stolen == pytest.approx(20 / TICKS)
    assert spent.machine == pytest.approx(200 / TICKS)


def test_the_real_proc_counts_what_a_process_really_does() -> None:
    before = own_seconds(os.getpid())
    while own_seconds(os.getpid()) < before + 3 / TICKS:
        pass
    assert tree_seconds(os.getpid()) >= own_seconds(os.getpid()) > before
