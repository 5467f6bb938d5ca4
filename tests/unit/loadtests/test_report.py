"""The table of targets and the tables of results."""

from loadtests.bench.http import Reply, Request
from loadtests.bench.measure import Collector
from loadtests.bench.report import markdown, number, table
from loadtests.bench.results import Result, Row
from loadtests.bench.sections import overload, throughput
from loadtests.bench.targets import verdicts

LOAD = throughput.SHORT[64].name


def result(name: str, *rows: Row) -> Result:
    return Result(
        name=name,
        title=name.title(),
        quick=False,
        began="2026-01-01 12:00",
        seconds=3,
        machine="a machine",
        revision="abc",
        rows=list(rows),
    )


def row(system: str, *rates: float, load: str = LOAD) -> Row:
    return Row(load=load, system=system, items_per_second=list(rates), requests=10, items=10)


def test_a_target_is_held_against_the_ratio_of_medians() -> None:
    fast = result("throughput", row("(a) stock", 90, 100, 300), row("(d) ours", 10, 400, 900))
    found = {verdict.name: verdict for verdict in verdicts({"throughput": fast})}
    verdict = found["(d) / (a), 20-token texts, concurrency 64"]
    assert (verdict.target, verdict.measured, verdict.holds) == ("at least 4x", "4.00x", True)

    slow = result("throughput", row("(a) stock", 100), row("(d) ours", 399))
    found = {verdict.name: verdict for verdict in verdicts({"throughput": slow})}
    assert not found["(d) / (a), 20-token texts, concurrency 64"].holds


def test_a_target_that_was_not_measured_is_left_out() -> None:
    assert verdicts({}) == []
    alone = {"throughput": result("throughput", row("(d) ours", 100))}
    assert [verdict.name for verdict in verdicts(alone)] == ["failures and wrong vectors, overload aside"]


def test_failures_and_wrong_vectors_break_a_target_of_their_own() -> None:
    failed = row("(d) ours", 100)
    failed.failures, failed.vectors_wrong = {"500": 2}, 1
    [verdict] = verdicts({"throughput": result("throughput", failed)})
    assert (verdict.measured, verdict.holds) == ("3.00", False)


def test_refusals_under_overload_are_no_failures() -> None:
    refused = row("(d) ours", 100, load=overload.OVERLOADS[512])
    refused.failures = {"429": 1000}
    refused.figures = {overload.GOODPUT: [0.8, 0.95, 1.0], overload.OTHER: [0, 0, 1]}
    rows = result("overload", row("(d) ours", 100, load=overload.CAPACITIES[512]), refused)
    found = {each.name: each for each in verdicts({"overload": rows})}
    assert found["3x overload, 512-token texts: goodput / capacity"].measured == "0.95x"
    assert not found["3x overload, 512-token texts: replies neither in time nor 429"].holds
    assert found["failures and wrong vectors, overload aside"].holds


def test_failures_stand_beside_the_rates() -> None:
    failed = row("(d) ours", 100.0, 300.0, 200.0)
    failed.failures = {"500": 2, "0": 1}
    text = markdown({"throughput": result("throughput", failed)})
    assert "| (d) ours | 200 (100 to 300) |" in text
    assert "2 x 500, 1 x broken of 10" in text


def test_a_collector_counts_failures_by_status_and_takes_no_latency_from_them() -> None:
    collector = Collector("load", "system")
    good = Reply(Request(0, b"", 2), 200, 1.0, 1.5, 2.0, 10, None, None)
    bad = Reply(Request(1, b"", 2), 503, 1.0, 1.0, 1.001, 10, None, None)
    collector.add([good, bad, bad], 5.0)
    assert collector.row.failures == {"503": 2}
    assert (collector.row.requests, collector.row.items) == (3, 2)
    # From the moment it was due.
    assert collector.row.p50_ms == [1000.0]


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.012345, 1.2345, 12.345, 123.45, 12345.6)] == [
        "0.0123",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]


def test_a_cell_cannot_end_its_column() -> None:
    assert table(("a",), [("x|y",)]) == ["| a |", "| --- |", "| x\\|y |"]
