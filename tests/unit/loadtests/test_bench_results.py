"""What a benchmark counts, and how it reports it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loadtests.bench.bench_targets import Verdict, verdicts
from loadtests.bench.cpu import Meter, machine_seconds, tree_seconds
from loadtests.bench.loops import Reply, Request, Vector
from loadtests.bench.markdown import number, spread, table
from loadtests.bench.measure import Collector, differ
from loadtests.bench.rows import Result, Row
from loadtests.bench.sections import mix, overload, throughput
from loadtests.bench.stats import percentile
from loadtests.bench.summary import markdown
from tests.unit.loadtests import sample_run

LOAD = throughput.SHORT[64].name
RATIO = "(d) / (a), 20-token texts, concurrency 64"
FAILURES = "failures and wrong vectors, overload aside"
UNIT = np.array([0.6, 0.8], np.float32)


def row(system: str, *rates: float, load: str = LOAD) -> Row:
    return Row(load=load, system=system, items_per_second=list(rates), requests=10, items=10)


def results(name: str, *rows: Row) -> dict[str, Result]:
    its = {"began": "2026-01-01 12:00", "machine": "a machine", "revision": "abc"}
    return {name: Result(name=name, title=name, quick=False, seconds=3, rows=list(rows), **its)}


def judged(found: dict[str, Result]) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in verdicts(found)}


def test_target_is_a_ratio_of_medians() -> None:
    fast = judged(results("throughput", row("(a) stock", 90, 100, 300), row("(d) ours", 10, 400, 900)))
    assert (fast[RATIO].measured, fast[RATIO].holds) == ("4.00x", True)
    slow = judged(results("throughput", row("(a) stock", 100), row("(d) ours", 399)))
    assert not slow[RATIO].holds


def test_unmeasured_targets_are_left_out() -> None:
    assert verdicts({}) == []
    assert list(judged(results("throughput", row("(d) ours", 100)))) == [FAILURES]


def test_failures_and_wrong_vectors_miss_their_target() -> None:
    failed = row("(d) ours", 100)
    failed.failures, failed.vectors_wrong = {"500": 2}, 1
    verdict = judged(results("throughput", failed))[FAILURES]
    assert (verdict.measured, verdict.holds) == ("3.00", False)


def test_refusals_under_overload_are_no_failures() -> None:
    refused = row("(d) ours", 100, load=overload.OVERLOADS[512])
    refused.failures = {"429": 1000}
    refused.figures = {overload.GOODPUT: [0.8, 0.95, 1.0], overload.OTHER: [0, 0, 1]}
    found = judged(results("overload", row("(d) ours", 100, load=overload.CAPACITIES[512]), refused))
    assert found[f"{overload.OVERLOADS[512]}: goodput / capacity"].measured == "0.95x"
    assert not found[f"{overload.OVERLOADS[512]}: replies neither in time nor 429"].holds
    assert found[FAILURES].holds


def test_report_shows_failures_beside_rates() -> None:
    failed = row("(d) ours", 100.0, 300.0, 200.0)
    failed.failures = {"500": 2, "0": 1}
    text = markdown(results("throughput", failed))
    assert "| (d) ours | 200 (100 to 300) |" in text
    assert "2 x 500, 1 x broken of 10" in text


def test_collector_takes_latency_of_good_replies_from_due() -> None:
    collector = Collector("load", "system")
    good = Reply(Request(0, b"", 2), 200, due=1.0, end=2.0, size=10)
    bad = Reply(Request(1, b"", 2), 503, due=1.0, end=1.001, size=10)
    collector.add([good, bad, bad], 5.0)
    assert collector.row.failures == {"503": 2}
    assert (collector.row.requests, collector.row.items) == (3, 2)
    assert collector.row.p50_ms == [1000.0]


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        (UNIT, False),
        (UNIT + np.float32(5e-6), False),
        (np.array([0.6001, 0.7999], np.float32), True),
        (np.array([0.6, 0.8, 0.0], np.float32), True),
        (np.array([np.nan, 0.8], np.float32), True),
        (UNIT * 2, True),
        (np.empty(0, np.float32), True),
    ],
)
def test_wrong_vectors_differ(other: Vector, wrong: bool) -> None:
    assert differ(other, UNIT) is wrong


def test_vectors_are_compared_by_request() -> None:
    collector = Collector("load", "system")
    collector.check({0: [UNIT], 40: [UNIT[::-1]], 80: [UNIT]}, {0: [UNIT], 40: [UNIT], 80: [UNIT, UNIT]})
    assert (collector.row.vectors_checked, collector.row.vectors_wrong) == (3, 2)


def test_first_system_is_checked_too() -> None:
    collector = Collector("load", "system")
    collector.check({0: [UNIT * 2]}, {})
    assert collector.row.vectors_wrong == 1


def test_mix_counts_a_run_of_the_harness() -> None:
    run = sample_run.build([sample_run.constant(rate=200, seconds=20)], failures={"wrong: order": 0.1})
    counted = row("(d)", load="mix")
    mix.add(counted, run.segments[0])
    [rate] = counted.items_per_second
    assert rate > 200, "items, not requests"
    assert counted.p50_ms[0] < counted.p99_ms[0]
    assert counted.vectors_wrong > 0
    assert counted.failures == {}


def test_meter_counts_ended_children() -> None:
    busy = "import os, time\nwhile time.process_time() < 0.2: pass\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\ninput()\n"
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    try:
        meter = Meter({"servers": [process.pid]})
        while tree_seconds(process.pid) < 0.2:
            pass
        spent = meter.read()
    finally:
        process.communicate(b"\n")
    assert spent.groups["servers"] > 0
    assert spent.groups[Meter.GENERATOR] > 0
    assert spent.machine >= sum(spent.groups.values()) - 0.1
    assert tree_seconds(process.pid) == 0


def test_machine_seconds_come_from_proc(tmp_path: Path) -> None:
    # user, nice, system, idle, iowait, irq, softirq, steal
    (tmp_path / "stat").write_text("cpu  100 0 50 200 0 0 0 30 0 0\ncpu0 0\n")
    ticks = os.sysconf("SC_CLK_TCK")
    assert machine_seconds(tmp_path) == pytest.approx((150 / ticks, 380 / ticks, 30 / ticks))


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.99, 10), (1.0, 10)])
def test_percentile_is_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_numbers_have_three_digits() -> None:
    values = (0.012345, 1.2345, 12.345, 123.45, 12345.6)
    assert [number(value) for value in values] == ["0.0123", "1.23", "12.3", "123", "12,346"]
    assert [spread(its) for its in ([], [5], [5, 1, 2])] == ["none", "5", "2 (1 to 5)"]


def test_table_escapes_its_cells() -> None:
    assert table(("a",), [("x|y",)]) == ["| a |", "| --- |", "| x\\|y |"]
