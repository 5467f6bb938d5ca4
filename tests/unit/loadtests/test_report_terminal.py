from loadtests.report import terminal
from tests.unit.loadtests.sample_run import build, constant, searched, steps


def test_the_headline_stands_first() -> None:
    assert terminal.render(build([constant()])).startswith("At 200 requests/s: p50 ")
    assert terminal.render(searched()).startswith("Holds 412 requests/s")


def test_failed_checks_stand_before_the_headline() -> None:
    text = terminal.render(build([constant()], failures={"wrong: order": 0.01}))
    assert text.startswith("CHECKS FAILED: ")
    assert "items/s †" in text


def test_columns_are_aligned() -> None:
    lines = terminal.render(build(steps(50, 200, 400))).splitlines()
    begin = lines.index("Loads") + 1
    rows = lines[begin : lines.index("", begin)]
    assert len(rows) == 1 + 3 * 3
    assert len({len(row) for row in rows}) == 1


def test_flows_get_a_row_each_only_where_there_are_several() -> None:
    assert "indexing" in terminal.render(build([constant()]))
    assert "flow" not in terminal.render(build([constant()], flows={"query": 1.0}))


def test_of_a_search_only_the_rate_that_holds_is_in_the_table_of_loads() -> None:
    lines = terminal.render(searched()).splitlines()
    begin = lines.index("Loads") + 2
    named = {line.split("/s")[0].strip() for line in lines[begin : lines.index("", begin)]}
    assert named == {"probe 412"}


def test_all_clocks_are_told() -> None:
    text = terminal.render(build([constant()]))
    for clock in ("total", "service", "router"):
        assert f"{clock} p99" in text


def test_failures_are_told_by_kind() -> None:
    text = terminal.render(build([constant()], failures={"HTTP 503": 0.01, "timeout": 0.01}))
    assert "HTTP 503" in text
    assert "timeout" in text


def test_what_a_server_said_moves_no_cursor_and_gives_nothing_away() -> None:
    run = build([constant()])
    run.notes = ["HTTP 500, for example: \x1b[2Jgone\nnext https://me:hunter2@example.org"]
    text = terminal.render(run)
    assert "\x1b" not in text
    assert "gone next https://***@example.org" in text
