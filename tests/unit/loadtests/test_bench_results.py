"""What a benchmark counts, and how it reports it."""

import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.loadtests.bench import bench_targets
from triptych.loadtests.bench.__main__ import main
from triptych.loadtests.bench.bench_report import markdown
from triptych.loadtests.bench.loops import Reply, Request, Round, Vector
from triptych.loadtests.bench.measure import (
    GENERATOR,
    OTHERS,
    Result,
    Row,
    Scale,
    Trial,
    cpu_seconds,
    differ,
    interleaved,
)
from triptych.loadtests.bench.sections import compared, overload
from triptych.loadtests.bench.sections.growth import BATCH, exponent, of_queue, of_replicas
from triptych.loadtests.slo import Bound

LOAD = compared.SHORT[64].name
RATIO = "(d) / (a), 20-token texts, concurrency 64"
FAILURES = "failures and wrong vectors, overload aside"
UNIT = np.array([0.6, 0.8], np.float32)


def row(system: str, *rates: float, load: str = LOAD) -> Row:
    return Row(load=load, system=system, items_per_second=list(rates), requests=10, items=10)


def result(name: str, *rows: Row, error: str = "", **figures: float) -> Result:
    its = {"began": "2026-01-01 12:00", "machine": "a machine", "revision": "abc", "seconds": 3}
    return Result(name=name, title=name, quick=False, rows=list(rows), figures=figures, error=error, **its)


def results(name: str, *rows: Row) -> dict[str, Result]:
    return {name: result(name, *rows)}


def judged(found: dict[str, Result]) -> dict[str, Bound]:
    return {bound.figure: bound for bound in bench_targets.judged(found)}


def replied(number: int, *vectors: Vector, status: int = 200, end: float = 2.0) -> Reply:
    return Reply(Request(number, b"", 2), status, due=1.0, end=end, vectors=vectors)


def test_target_is_a_ratio_of_medians() -> None:
    fast = judged(results("throughput", row("(a) stock", 90, 100, 300), row("(d) ours", 10, 400, 900)))
    assert (fast[RATIO].bound, fast[RATIO].measured, fast[RATIO].holds) == (4, "4x", True)
    slow = judged(results("throughput", row("(a) stock", 100), row("(d) ours", 399)))
    assert not slow[RATIO].holds


@pytest.mark.parametrize("rates", [(0, 0, 100), ()])
def test_ratio_to_a_system_that_mostly_failed_is_not_measured(rates: tuple[float, ...]) -> None:
    assert RATIO not in judged(results("throughput", row("(a) stock", *rates), row("(d) ours", 100)))


@pytest.mark.parametrize("data", [b"", b"{", b'{"router": {"name": "router"}}'])
def test_damaged_results_are_named_before_anything_is_measured(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bench.json").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        main(["--only", "router", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert str(tmp_path / "bench.json") in capsys.readouterr().err


def test_refusals_under_overload_are_no_failures() -> None:
    refused = row("(d) ours", 100, load=overload.OVERLOADS[512])
    refused.failures = {"429": 1000}
    refused.figures = {overload.GOODPUT: [0.8, 0.95, 1.0], overload.OTHER: [0, 0, 1]}
    found = judged(results("overload", row("(d) ours", 100, load=overload.CAPACITIES[512]), refused))
    assert found[f"{overload.OVERLOADS[512]}: goodput / capacity"].measured == "0.95x"
    assert found[f"{overload.OVERLOADS[512]}: {overload.OTHER}"].measured == "1"
    assert found[FAILURES].holds


def test_report_shows_failures_beside_rates() -> None:
    failed = row("(d) ours", 100.0, 300.0, 200.0)
    failed.failures = {"500": 2, "0": 1}
    failed.cpu = {"router": 1.0}
    text = markdown(results("throughput", failed))
    assert "| (d) ours | 200 (100 to 300) |" in text
    assert "2 x 500, 1 x broken of 10" in text
    assert "| router 100 |" in text
    assert f"| {RATIO}" not in text
    assert f"| {FAILURES} | at most 0 | 3 | **no** |" in text


def test_rows_without_requests_have_figures_only() -> None:
    text = markdown(results("growth", Row(load="n replicas", system="n = 1", figures={"CPU ms": [0.5]})))
    assert "| n = 1 | CPU ms | 0.5 |" in text
    assert "0 of 0" not in text


def test_row_takes_latency_of_good_replies_from_due() -> None:
    counted = Row(load="load", system="system")
    bad = replied(1, status=503, end=1.001)
    counted.add(Round([replied(0), bad, bad], 5.0, {"figure": 7.0}, [replied(2), bad]))
    assert counted.failures == {"503": 2, "bulk 503": 1}
    assert (counted.requests, counted.items) == (3, 4)
    assert counted.p50_ms == counted.p99_ms == [1000.0]
    assert counted.figures == {"figure": [7.0]}


@pytest.mark.parametrize(
    ("other", "tolerance", "wrong"),
    [
        (UNIT + np.float32(5e-6), 1e-5, False),
        (UNIT + np.float32(5e-4), 1e-5, True),
        (UNIT + np.float32(5e-4), 1e-3, False),
        (np.array([0.6, 0.8, 0.0], np.float32), 1e-3, True),
        (np.array([np.nan, 0.8], np.float32), 1e-3, True),
        (UNIT * 2, 1e-3, True),
        (np.empty(0, np.float32), 1e-3, True),
    ],
)
def test_wrong_vectors_differ(other: Vector, tolerance: float, wrong: bool) -> None:
    assert differ(other, UNIT, tolerance) is wrong


def test_vector_that_is_not_finite_is_a_failure() -> None:
    """Otherwise the report would not tell an engine's NaN from vectors of another model."""
    counted = Row(load="load", system="system")
    counted.check([replied(0, UNIT), replied(1, UNIT * np.nan), replied(2, UNIT * 2)], {}, 1e-5)
    assert counted.failures == {"not finite": 1}
    assert counted.vectors_wrong == 2


async def test_vectors_are_compared_by_request() -> None:
    """Each system has one wrong vector: a request of two vectors, one not of length 1, one that differs."""
    rounds = {
        "first": [replied(0, UNIT), replied(1, UNIT * 2), replied(2, UNIT, UNIT), replied(3)],
        "second": [replied(2, UNIT), replied(0, UNIT), replied(3, UNIT)],
        "third": [replied(0, UNIT[::-1]), replied(3, UNIT)],
    }

    def trial(system: str) -> Trial:
        async def done() -> Round:
            return Round(rounds[system], 1.0)

        def prepare(number: int, rate: float) -> Coroutine[Any, Any, Round]:
            assert rate == min(number, 1)
            return done()

        return Trial("load", system, {}, prepare)

    rows = await interleaved(list(map(trial, rounds)), Scale(rounds=2, seconds=1, settle_seconds=0))
    assert [each.vectors_checked for each in rows] == [8, 6, 4]
    assert [each.vectors_wrong for each in rows] == [2, 2, 2]
    assert [each.items_per_second for each in rows] == [[1.0, 1.0]] * 3
    assert rows[0].cpu[GENERATOR] >= 0


def test_cpu_of_ended_children_counts() -> None:
    busy = "import os, time\nwhile time.process_time() < 0.2: pass\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\n"
    child += "print('ended', flush=True)\ninput()\n"
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = cpu_seconds({"servers": process})
    finally:
        process.communicate(b"\n")
    assert seconds["servers"] >= 0.2
    assert seconds[GENERATOR] > 0
    assert seconds[OTHERS] > 0
    assert cpu_seconds({"servers": process})["servers"] == 0


def test_exponent_is_that_of_the_steepest_part() -> None:
    assert exponent({1: 5.0, 10: 5.0, 100: 5.0}) == 0
    assert exponent({1: 5.0, 8: 5.0, 64: 40.0}) == pytest.approx(1)
    # Quadratic only at its end.
    assert exponent({1: 1.0, 10: 2.0, 100: 200.0}) == pytest.approx(2)


def test_measured_growth_is_of_work_that_is_done() -> None:
    """The queue stays as deep while batches pass, or `of_queue` raises."""
    assert min(of_queue(10 * BATCH, with_keys=with_keys) for with_keys in (False, True)) > 0
    assert of_replicas(2) > 0
