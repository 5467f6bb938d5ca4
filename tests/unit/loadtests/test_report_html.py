import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from loadtests.report import html
from loadtests.results import Golden, Interval, Run, Segment
from loadtests.slo import Judgement
from tests.unit.loadtests.sample_run import build, constant, searched, steps

HOSTILE = '"><script>alert("$x_1$")</script>'
SECRET = "hunter2"


class Page(HTMLParser):
    """What stands in a page: tags, ids, what is referred to, and its letters."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.outside: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            elif name == "href" and value.startswith("#"):
                self.references.append(value[1:])
            elif name in ("href", "src", "xlink:href", "srcset"):
                self.outside.append(value)
            self.references += re.findall(r"url\(#([^)]+)\)", value)

    def handle_data(self, data: str) -> None:
        self.words += data


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


def test_whatever_a_run_holds_is_text_and_never_markup() -> None:
    page = Page(html.render(hostile(), None))
    assert "script" not in page.tags
    assert HOSTILE in page.words


@pytest.mark.parametrize("run", [build([constant()]), build(steps(50, 200, 400)), searched()])
def test_the_page_needs_nothing_but_itself(run: Run) -> None:
    page = html.render(run, None)
    parsed = Page(page)
    assert parsed.outside == []
    assert not {"link", "img", "script", "iframe"} & set(parsed.tags)
    assert "@import" not in page
    assert "url(http" not in page


def test_ids_of_the_figures_are_unique_and_what_is_referred_to_is_there() -> None:
    page = Page(html.render(build(steps(50, 200, 400)), None))
    assert page.tags.count("svg") > 5
    assert page.references
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)


def test_every_colour_is_the_pages_and_known_both_in_light_and_in_dark() -> None:
    page = html.render(build(steps(50, 200, 400), failures={"HTTP 503": 0.1, "timeout": 0.1}), None)
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", svgs)
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    used = set(re.findall(r"var\(--(\w+)\)", page)) - {"c"}
    for colours in (light, dark):
        assert used <= set(re.findall(r"--(\w+):", colours))


def test_credentials_in_an_address_are_not_shown() -> None:
    run = build(steps(50, 200, 400))
    address = f"https://me:{SECRET}@example.org/v1"
    run.target = {"": address}
    run.command = f"python -m loadtests run --url {address} --url code={address}"
    run.notes = [f"HTTP 500, for example: cannot reach {address}"]
    run.segments[0].segment.name = address
    page = html.render(run, None)
    assert SECRET not in page
    assert "https://***@example.org/v1" in page


def test_names_of_segments_stand_in_the_figures_as_they_are_but_for_credentials() -> None:
    run = build(steps(50, 200))
    run.segments[0].segment.name = "$a_1$<b>"
    run.segments[1].segment.name = f"x://me:{SECRET}@y"
    page = html.render(run, None)
    drawn = Page("".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))).words
    assert "$a_1$<b>" in drawn
    assert "x://***@y" in drawn
    assert SECRET not in page


def _judged(*held: bool) -> Judgement:
    lines = [
        SimpleNamespace(text=f"p99 <= {250 + n} ms", holds=one, close=not one) for n, one in enumerate(held)
    ]
    return cast(Judgement, SimpleNamespace(passed=all(held), lines=lines))


def test_a_judgement_is_told_line_by_line() -> None:
    run = build(steps(50, 200, 400))
    passed, failed = (html.render(run, judgement) for judgement in (_judged(True), _judged(True, False)))
    assert re.search(r'class="banner good"[^>]*><p>PASS', passed)
    assert re.search(r'class="banner bad"[^>]*><p>FAIL: 1 of 2 objectives do not hold', failed)
    words = Page(failed).words
    assert "holds: p99 <= 250 ms" in words
    assert "FAILS: p99 <= 251 ms (close" in words


def test_failed_checks_stand_before_a_judgement() -> None:
    words = Page(html.render(build([constant()], failures={"wrong: norm": 0.01}), _judged(True))).words
    assert words.index("CHECKS FAILED") < words.index("PASS: every")


def test_failed_checks_stand_before_any_figure_and_throughput_is_marked() -> None:
    run = build([constant()], failures={"wrong: golden": 0.01, "HTTP 503": 0.01})
    words = Page(html.render(run, None)).words
    wrong = sum(one.failures.get("wrong: golden", 0) for one in _intervals(run))
    good = sum(sum(one.clocks["total"].values()) for one in _intervals(run))
    said = words.index(f"CHECKS FAILED: {wrong:,} of {wrong + good:,} replies were not what was asked for")
    assert said < words.index("At 200 requests/s")
    assert re.search(r"[\d.]+k? tokens/s †", words)
    assert re.search(r"[\d.,]+† items/s", words)


def test_a_reply_that_was_wrong_while_the_load_settled_fails_the_checks_too() -> None:
    run = build([constant()])
    next(iter(run.segments[0].intervals.values()))[0].failures = {"wrong: order": 1}
    assert "CHECKS FAILED: 1 of " in html.render(run, None)


def test_vectors_that_were_not_right_before_the_load_fail_the_checks() -> None:
    run = build([constant()])
    run.golden = Golden(source="a file", compared=1, complaints=["pools code and retrieval answer the same"])
    assert "pools code and retrieval answer the same" in Page(html.render(run, None)).words
    assert 'class="banner bad"' in html.render(run, None)


def test_a_run_without_faults_has_no_banner_that_warns() -> None:
    page = html.render(build([constant()]), None)
    assert not re.search(r'class="banner (bad|warning)"', page)
    assert "†" not in page


def test_a_busy_harness_is_said_in_amber() -> None:
    page = html.render(build([constant()], cpu=0.99), None)
    assert re.search(r'class="banner warning"[^>]*><p>The harness itself', page)


def test_a_search_is_told_in_one_sentence() -> None:
    assert (
        "Holds 412 requests/s (less than 440) with p99 <= 250 ms and failures <= 0.1 %; "
        "confirmed 3 of 3; limited by the server"
    ) in Page(html.render(searched(), None)).words


def test_a_search_of_too_few_replies_says_so_and_not_that_nothing_holds() -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.rate, run.capacity.limited_by = 0.0, "replies"
    run.capacity.probes[-1].verdict = "unclear"
    run.capacity.probes[-1].why = "too few replies (99 of 200): give --seconds 65"
    words = Page(html.render(run, None)).words
    assert (
        "No result for p99 <= 250 ms and failures <= 0.1 %: "
        "at 412 requests/s too few replies (99 of 200): give --seconds 65"
    ) in words
    assert "No rate that was tried" not in words


def test_a_search_that_found_no_rate_says_so() -> None:
    run = searched()
    assert run.capacity is not None
    run.capacity.rate = 0.0
    for probe in run.capacity.probes:
        probe.verdict = "fails"
    words = Page(html.render(run, None)).words
    assert "No rate that was tried holds p99 <= 250 ms" in words
    assert "At the lowest rate tried, 50 requests/s" in words


def test_latency_is_drawn_against_the_load_only_where_there_are_three() -> None:
    assert "Answered against load" not in html.render(build([constant()]), None)
    assert "Answered against load" in html.render(build(steps(50, 200, 400)), None)


def test_the_objective_of_a_search_is_drawn_into_the_latency() -> None:
    run = searched()
    assert "to be held: 250 ms" in html.render(run, None)
    assert run.capacity is not None
    run.capacity.objective = "failures <= 0.1 %"
    assert "to be held" not in html.render(run, None)


def test_a_long_run_of_many_flows_stays_small() -> None:
    run = build([constant(seconds=600)], flows={f"flow {number}": 1 / 6 for number in range(6)})
    for series in run.series[:4] * 8:
        run.series.append(msgspec.structs.replace(series, name=f"{series.name} again"))
    assert len(html.render(run, None).encode()) < 1_500_000


def test_the_same_run_gives_the_same_page() -> None:
    run = build(steps(50, 200, 400))
    assert html.render(run, None) == html.render(run, None)


def test_a_run_in_which_nothing_was_answered_can_be_shown() -> None:
    run = build([constant(seconds=20)])
    for measured in run.segments:
        for one in (one for row in measured.intervals.values() for one in row):
            one.done, one.items, one.tokens, one.clocks = 0, 0, 0, {}
            one.failures = {"connection refused": one.sent}
    words = Page(html.render(run, None)).words
    assert "p99 -" in words
    assert "connection refused" in words


def test_a_closed_loop_is_told_in_users() -> None:
    segments = [
        Segment(name=f"{users} users", seconds=20.0, settle=2.0, users=(users, users)) for users in (2, 4, 8)
    ]
    run = build(segments)
    run.loop = "closed"
    words = Page(html.render(run, None)).words
    assert "At 8 users: p50" in words
    assert "all that was asked" not in words


def _intervals(run: Run) -> list[Interval]:
    return [one for measured in run.segments for row in measured.intervals.values() for one in row]
