import pytest

from tests.unit.loadtests.sample_run import build, constant, searched, steps
from triptych.loadtests.report import terminal


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without colours and of no set width."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def rows_of(text: str, title: str) -> list[str]:
    lines = text.splitlines()
    begin = lines.index(title) + 1
    return lines[begin : lines.index("", begin)]


def test_result_comes_first() -> None:
    assert terminal.render(build([constant()])).startswith("At 200 requests/s: p50 ")
    assert terminal.render(searched()).startswith("Holds 412 requests/s")


def test_failed_checks_come_before_the_result() -> None:
    text = terminal.render(build([constant()], failures={"wrong: order": 0.01}))
    assert text.startswith("CHECKS FAILED: ")
    assert "items/s †" in text


def test_each_segment_and_flow_has_a_row() -> None:
    rows = rows_of(terminal.render(build(steps(50, 200, 400))), "Loads")
    assert len(rows) == 1 + 3 * 3
    assert [row.split()[:2] for row in rows[1:4]] == [["50/s", flow] for flow in ("all", "query", "indexing")]


def test_search_shows_only_the_rate_that_holds() -> None:
    rows = rows_of(terminal.render(searched()), "Loads")
    assert {row.split("/s")[0].strip() for row in rows[1:]} == {"probe 412"}


def test_clocks_and_failures_are_shown() -> None:
    text = terminal.render(build([constant()], failures={"HTTP 503": 0.01, "timeout": 0.01}))
    for said in ("total p99", "service p99", "router p99", "HTTP 503", "timeout"):
        assert said in text


def test_control_characters_are_removed() -> None:
    run = build([constant()])
    run.notes = ["HTTP 500, for example: \x1b[2Jgone\nnext [red]x"]
    text = terminal.render(run)
    assert "\x1b" not in text
    assert "gone next [red]x" in text
