"""The report: what the page and the terminal say, in which order, and how a run is cut for it."""

import base64
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import msgspec
import pytest

from tests.unit.loadtests.sample_run import build, constant, searched, steps
from triptych.loadtests import slo
from triptych.loadtests.estimates import times
from triptych.loadtests.histogram import mean, merged
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.report import headline, html, tables, terminal
from triptych.loadtests.report.cuts import latency, moments
from triptych.loadtests.report.words import duration, number, share
from triptych.loadtests.results import Golden, Probe, Run, Segment

HOSTILE = '"><script>alert("$x_1$")</script>'


class Page(HTMLParser):
    """The tags, references, drawings and words of a page."""

    def __init__(self, run: Run, judgement: Sequence[slo.Bound] = ()) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words = ""
        self.source = html.render(run, judgement)
        self.feed(self.source)
        images = [text.partition(",")[2] for text in self.references if text.startswith("data:image/svg+xml")]
        self.drawn = [base64.b64decode(image).decode() for image in images]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words += " ".join(data.split()) + " " if data.strip() else ""


def hostile() -> Run:
    """A run in which every name is markup."""
    run = build(
        [Segment(name=HOSTILE, seconds=40.0, settle=5.0, rate=rate) for rate in (50.0, 100.0, 200.0)],
        flows={HOSTILE: 0.5, f"other {HOSTILE}": 0.5},
        failures={HOSTILE: 0.01, f"wrong: {HOSTILE}": 0.01},
        cpu=0.99,
    )
    document = msgspec.to_builtins(run)
    for name, value in document.items():
        if isinstance(value, str):
            document[name] = HOSTILE
    document |= {"target": {HOSTILE: HOSTILE}, "notes": [HOSTILE]}
    document["golden"] = {"source": HOSTILE, "compared": 1, "complaints": [HOSTILE]}
    for measured in document["segments"]:
        measured["processes"][0]["name"] = HOSTILE
    for series in document["series"]:
        series |= {"panel": HOSTILE, "name": HOSTILE, "unit": HOSTILE}
    return msgspec.convert(document, Run)


def judged(*limits: float) -> tuple[Run, list[slo.Bound]]:
    run = build(steps(50, 200))
    return run, slo.judge(run, Objectives(objective=tuple(Objective(p99_ms=limit) for limit in limits)))


def test_text_of_a_run_is_escaped() -> None:
    page = Page(hostile())
    assert "script" not in page.tags
    assert HOSTILE in page.words
    assert all("<script" not in svg for svg in page.drawn)
    assert any("$x_1$" in svg for svg in page.drawn)


@pytest.mark.parametrize("run", [build([constant()]), build(steps(50, 200, 400)), searched()])
def test_page_needs_no_other_resource(run: Run) -> None:
    page = Page(run)
    assert len(page.drawn) == len(page.references) > 5
    assert not {"link", "script", "iframe"} & set(page.tags)
    assert all("@import" not in text and "url(http" not in text for text in [page.source, *page.drawn])


def test_six_questions_are_answered_in_order() -> None:
    run = build(steps(50, 200, 400))
    run.segments[0].intervals["query"][0].failures = {"wrong: order": 1}
    judgement = slo.judge(run, Objectives(objective=(Objective(p99_ms=1000),)))
    words = Page(run, judgement).words
    said = ["CHECKS FAILED: 1 of ", "FAIL: 1 of ", "At 400 requests/s"]
    figures = ["Latency against load", "Answered against load", "Over time", "By flow", "Where the"]
    assert sorted(said + figures, key=words.index) == said + figures
    text = terminal.render(run, judgement)
    assert sorted(said, key=text.index) == said


def complaining() -> Run:
    run = build([constant()])
    run.golden = Golden(source="a file", compared=1, complaints=["pools code and retrieval answer the same"])
    return run


@pytest.mark.parametrize(
    ("run", "judgement", "tones"),
    [
        (build([constant()]), (), ["plain"]),
        (build([constant()], cpu=0.99), (), ["plain", "warning"]),
        (complaining(), (), ["bad", "plain"]),
        (*judged(1000), ["good", "plain"]),
        (*judged(1000, 1), ["bad", "plain"]),
    ],
)
def test_banners_say_what_matters(run: Run, judgement: Sequence[slo.Bound], tones: list[str]) -> None:
    found = headline.banners(run, judgement)
    assert [banner.tone for banner in found] == tones
    lines = " ".join(line for banner in found for line in banner.lines)
    assert all(complaint in lines for complaint in run.golden.complaints)
    assert lines.count("FAILS: ") == sum(not bound.holds for bound in judgement)


def test_search_says_which_rate_holds() -> None:
    for words in (Page(searched()).words, terminal.render(searched())):
        assert "Holds 412 requests/s (less than 440) with p99=250ms,failures=0.1%; confirmed 3 of 3;" in words
        assert "At the rate that holds, 412 requests/s: p50" in words


def test_figures_of_the_rate_are_of_the_tries_that_held() -> None:
    run = searched()
    assert run.capacity is not None
    before = headline.sentence(run)
    # The slowest probe, as a confirmation that a stall made slow.
    run.capacity.probes.append(Probe(rate=412.0, verdict="fails", segments=[4]))
    assert headline.sentence(run) == before


@pytest.mark.parametrize(
    ("limit", "banner", "said"),
    [
        ("replies", "warning", "412 requests/s too few replies: give --seconds 65"),
        ("server", "bad", "tried was 50"),
    ],
)
def test_search_without_a_rate_says_so(limit: str, banner: str, said: str) -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.rate, run.capacity.limited_by = 0.0, limit  # type: ignore[assignment]
    run.capacity.probes[-1].why = "too few replies: give --seconds 65"
    [found] = headline.banners(run, ())
    assert (found.tone, said in found.title) == (banner, True)


def test_two_loads_make_no_curve() -> None:
    assert "against load" not in Page(build(steps(50, 200))).words


@pytest.mark.parametrize(("objective", "drawn"), [("p99=250ms", True), ("failures=0.1%", False)])
def test_objective_is_drawn_into_the_latency(objective: str, drawn: bool) -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.objective = objective
    assert ("limit of p99: 250 ms" in Page(run).drawn[0]) is drawn


def test_long_run_makes_a_small_page() -> None:
    run = build([constant(seconds=600)], flows={f"flow {number}": 1 / 6 for number in range(6)})
    run.series += [msgspec.structs.replace(one, name=f"{one.name} again") for one in run.series[:4] * 8]
    assert len(html.render(run).encode()) < 1_500_000


def test_run_without_a_reply_is_shown() -> None:
    run = build([constant(seconds=20)])
    for one in (one for its in run.segments for row in its.intervals.values() for one in row):
        one.done, one.items, one.tokens, one.clocks = 0, 0, 0, {}
        one.failures = {"connection refused": one.sent}
    words = Page(run).words
    assert "p99 -" in words
    assert "connection refused" in words


def test_terminal_has_a_row_for_each_segment_and_flow() -> None:
    text = terminal.render(build(steps(50, 200, 400), failures={"timeout": 0.01}))
    assert text.startswith("At 400 requests/s: p50 ")
    for segment in ("50/s", "200/s", "400/s"):
        for flow in ("all", "query", "indexing"):
            assert re.search(rf"^ *{segment} +{flow} ", text, re.MULTILINE)
    assert "timeout" in text


def test_terminal_shows_only_the_rate_that_holds() -> None:
    found = re.findall(r"^ *(probe \d+)/s +all ", terminal.render(searched()), re.MULTILINE)
    assert found == ["probe 412"]


def test_control_characters_are_removed() -> None:
    run = build([constant()])
    run.notes = ["HTTP 500, for example: \x1b[2Jgone\nnext [red]x"]
    text = terminal.render(run)
    assert "\x1b" not in text
    assert "gone next [red]x" in text


@pytest.mark.parametrize("seconds", [60.0, 60.3, 59.9, 7.0])
@pytest.mark.parametrize("most", [5, 40, 1000])
def test_moments_hold_every_interval_once(seconds: float, most: int) -> None:
    run = build([constant(seconds=seconds)])
    pieces = moments(run, most)
    assert len(pieces) <= most
    joined = [one for piece in pieces for one in piece.intervals["query"]]
    assert joined == run.segments[0].intervals["query"]
    assert sum(piece.segment.seconds for piece in pieces) == pytest.approx(seconds)


def test_settling_does_not_change_a_percentile() -> None:
    run = build([constant()])
    before = latency(run.segments, 0.99)
    for second, slower in ((4, False), (5, True)):
        for row in run.segments[0].intervals.values():
            row[second].clocks["total"] = {700: 10_000}
        assert (latency(run.segments, 0.99) > 2 * before) is slower
    assert math.isnan(latency(run.segments, 0.99, flow="absent"))


def test_parts_add_up_to_the_mean_latency() -> None:
    run = build([constant()])
    parts = tables.spent(run.segments)
    assert list(parts) == ["waiting to be sent", "network and client", "router", "queue", "inference"]
    assert sum(parts.values()) == pytest.approx(mean(merged(times(run.segments))), rel=0.01)
    for row in run.segments[0].intervals.values():
        for one in row:
            one.clocks = {"total": one.clocks["total"], "service": one.clocks["service"]}
    assert list(tables.spent(run.segments)) == ["waiting to be sent", "server and network"]


def test_words_have_three_digits() -> None:
    durations = {0.0000123: "12.3 µs", 0.0123: "12.3 ms", 0.9996: "1 s", 1234.0: "1230 s", 0.0: "0 s"}
    assert {value: duration(value) for value in durations} == durations
    numbers = {
        0.0: "0",
        0.5541: "0.554",
        12.34: "12.3",
        1_234: "1.23k",
        9_999.6: "10k",
        80_400: "80.4k",
        999_600: "1M",
    }
    assert {value: number(value) for value in numbers} == numbers
    assert [share(value) for value in (0, 1e-6, 0.5)] == ["0 %", "0.0001 %", "50 %"]
