import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import msgspec
import pytest

from tests.unit.loadtests.sample_run import build, constant, searched, steps
from triptych.loadtests import slo
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.report import html
from triptych.loadtests.results import Golden, Run, Segment

HOSTILE = '"><script>alert("$x_1$")</script>'


class Page(HTMLParser):
    """The tags, references, headings, figures and words of a page."""

    def __init__(self, run: Run, judgement: Sequence[slo.Bound] = ()) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.banners: list[str] = []
        self.figures: list[str] = []
        self.words = ""
        self.source = html.render(run, judgement)
        self.feed(self.source)
        self.drawn = [base64.b64decode(image).decode() for image in self._images()]

    def _images(self) -> list[str]:
        return [text.partition(",")[2] for text in self.references if text.startswith("data:image/svg+xml")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "srcset"):
                self.references.append(value or "")
            if name == "class" and (value or "").startswith("banner "):
                self.banners.append((value or "").removeprefix("banner "))
            if name == "alt":
                self.figures.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += " ".join(data.split()) + " " if data.strip() else ""


def hostile() -> Run:
    """A run in which every name is markup."""
    run = build(
        [Segment(name=HOSTILE, seconds=40.0, settle=5.0, rate=(rate, rate)) for rate in (50.0, 100.0, 200.0)],
        flows={HOSTILE: 0.5, f"other {HOSTILE}": 0.5},
        failures={HOSTILE: 0.01, f"wrong: {HOSTILE}": 0.01},
        cpu=0.99,
    )
    document = msgspec.to_builtins(run)
    words = (
        "name",
        "command",
        "scenario",
        "about",
        "shape",
        "dialect",
        "seed",
        "began",
        "machine",
        "revision",
    )
    document |= dict.fromkeys(words, HOSTILE)
    document["target"] = {HOSTILE: HOSTILE}
    document["notes"] = [HOSTILE]
    document["golden"] = {"source": HOSTILE, "compared": 1, "complaints": [HOSTILE]}
    for measured in document["segments"]:
        for process in measured["processes"]:
            process["name"] = HOSTILE
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
    for text in [page.source, *page.drawn]:
        assert "@import" not in text
        assert "url(http" not in text


def test_six_questions_are_answered_in_order() -> None:
    run = build(steps(50, 200, 400), failures={"wrong: order": 0.01})
    words = Page(run).words
    said = [
        "CHECKS FAILED",
        "At 400 requests/s",
        "Latency against load",
        "Over time",
        "By flow",
        "Where the time",
    ]
    assert sorted(said, key=words.index) == said


def test_colours_exist_in_light_and_dark() -> None:
    source = html.render(build([constant()]))
    used = set(re.findall(r"var\(--([\w-]+)\)", source))
    for colours in re.findall(r":root \{(.*?)\}", source, re.DOTALL):
        assert used <= set(re.findall(r"--([\w-]+):", colours))


def test_judgement_is_shown_line_by_line() -> None:
    passed, failed = Page(*judged(1000)), Page(*judged(1000, 1))
    assert passed.banners == ["good", "plain"]
    assert "PASS" in passed.words
    assert failed.banners == ["bad", "plain"]
    assert failed.words.count("holds: ") == 3
    assert failed.words.count("FAILS: ") == 2


def test_failed_checks_precede_the_judgement() -> None:
    run, judgement = judged(1000)
    next(iter(run.segments[0].intervals.values()))[0].failures = {"wrong: order": 1}
    words = Page(run, judgement).words
    assert words.index("CHECKS FAILED: 1 of ") < words.index("PASS")


def test_failed_checks_mark_throughput() -> None:
    page = Page(build([constant()], failures={"wrong: golden": 0.01}))
    assert page.banners[0] == "bad"
    assert re.search(r"tokens/s †", page.words)
    assert re.search(r"[\d.,]+† items/s", page.words)


def test_complaints_fail_the_checks() -> None:
    run = build([constant()])
    run.golden = Golden(source="a file", compared=1, complaints=["pools code and retrieval answer the same"])
    page = Page(run)
    assert page.banners[0] == "bad"
    assert "pools code and retrieval answer the same" in page.words


def test_faultless_run_has_no_warning() -> None:
    page = Page(build([constant()]))
    assert page.banners == ["plain"]
    assert "†" not in page.source


def test_busy_harness_is_a_warning() -> None:
    assert Page(build([constant()], cpu=0.99)).banners == ["plain", "warning"]


def test_search_is_one_sentence() -> None:
    words = Page(searched()).words
    assert "Holds 412 requests/s (less than 440) with p99=250ms,failures=0.1%; confirmed 3 of 3;" in words


def test_search_without_enough_replies_has_no_result() -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.rate, run.capacity.limited_by = 0.0, "replies"
    run.capacity.probes[-1].why = "too few replies (99 of 200): give --seconds 65"
    page = Page(run)
    assert page.banners == ["warning"]
    assert "at 412 requests/s too few replies (99 of 200): give --seconds 65" in page.words


def test_search_without_a_rate_says_so() -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.rate = 0.0
    for probe in run.capacity.probes:
        probe.verdict = "fails"
    page = Page(run)
    assert page.banners == ["bad"]
    assert "At the lowest rate tried, 50 requests/s" in page.words


def test_three_loads_make_a_curve() -> None:
    assert "Answered against load" not in Page(build(steps(50, 200))).figures
    assert "Answered against load" in Page(build(steps(50, 200, 400))).figures


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


def test_same_run_gives_the_same_page() -> None:
    run = build(steps(50, 200, 400))
    assert html.render(run) == html.render(run)


def test_run_without_a_reply_is_shown() -> None:
    run = build([constant(seconds=20)])
    for one in (one for its in run.segments for row in its.intervals.values() for one in row):
        one.done, one.items, one.tokens, one.clocks = 0, 0, 0, {}
        one.failures = {"connection refused": one.sent}
    words = Page(run).words
    assert "p99 -" in words
    assert "connection refused" in words


def test_closed_loop_counts_users() -> None:
    run = build([Segment(name=f"{n} users", seconds=20.0, settle=2.0, users=(n, n)) for n in (2, 4, 8)])
    run.loop = "closed"
    page = Page(run)
    assert "At 8 users: p50" in page.words
    assert all("all that was due" not in svg for svg in page.drawn)
