"""Whether a rate holds: with confidence, by all that is bounded, and never by too few replies."""

from pathlib import Path

import pytest

from loadtests import verdict
from loadtests.objectives import read_objectives
from loadtests.results import Measured
from tests.unit.loadtests.sample_run import interval, measured, steady
from tests.unit.loadtests.test_slo import objectives


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(0.1), "p99=500ms", "holds"),
        (steady(1.0), "p99=500ms", "fails"),
        (steady(0.1, failures=5), "failures=1%", "fails"),
        (steady(0.1), "failures=0.1%", "holds"),
        # 50 of 60 that were offered a second are answered: a queue grows.
        (steady(0.1, sent=60), "p99=500ms", "fails"),
        # A hundred replies are too few for a p99.
        (measured([interval([0.1] * 10)] * 10), "p99=500ms", "unclear"),
        (measured([interval(sent=50)] * 10), "p99=500ms", "fails"),
    ],
)
def test_a_rate_holds_or_fails_with_confidence_or_is_unclear(one: Measured, text: str, found: str) -> None:
    assert verdict.holds([one], read_objectives(text))[0] == found


def test_what_is_missing_for_a_verdict_is_said_of_the_flow_that_lacks_most(tmp_path: Path) -> None:
    text = '[[objective]]\nflow = "{}"\n{} = 500\n'
    judged = objectives(
        text.format("query", "p999_ms") + text.format("slow", "p99_ms") + text.format("none", "capacity"),
        tmp_path,
    )
    one = measured([interval([0.1] * 50)] * 12, slow=[interval([0.1])] * 12)
    assert verdict.too_few([one], judged) == verdict.Few(12, verdict.ENOUGH_REPLIES)
    assert verdict.too_few([one] * 17, judged) is None
    assert verdict.holds([one], judged) == ("unclear", "flow query: 600 of 2000 replies")


def test_a_bound_within_the_confidence_interval_is_unclear() -> None:
    # One in ten is slow, so the p90 is either.
    one = measured([interval([0.1] * 45 + [0.2] * 5)] * 10)
    assert verdict.holds([one], read_objectives("p90=150ms"))[0] == "unclear"


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(sent=54), "throughput_share = 0.99", "fails"),
        (steady(), "throughput_share = 0.99", "holds"),
        (steady(), "throughput = 60", "fails"),
        (steady(), "throughput = 40", "holds"),
        (steady(), "p99_over_p50 = 1.01", "fails"),
        (steady(), "p99_over_p50 = 3", "holds"),
        (steady(), 'segments = ["steady"]\np99_ms = 1', "fails"),
        (steady(), 'flow = "absent"\nfailure_share = 0.01', "fails"),
        # The flow has twelve replies, all together have 612.
        (
            measured([interval([0.1] * 50)] * 12, slow=[interval([0.1])] * 12),
            'flow = "slow"\np99_ms = 500',
            "unclear",
        ),
    ],
)
def test_a_rate_is_judged_by_every_bound_of_a_rate(
    one: Measured, text: str, found: str, tmp_path: Path
) -> None:
    assert verdict.holds([one], objectives(f"[[objective]]\n{text}\n", tmp_path))[0] == found


@pytest.mark.parametrize(
    "text",
    ["[[objective]]\ncapacity = 10\n", "[[objective]]\np99_over_idle_p50 = 9\n", "[baseline]\np99 = 2\n"],
)
def test_objectives_that_say_nothing_of_a_rate_do_not_hold_silently(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p99_ms"):
        verdict.holds([steady()], objectives(text, tmp_path))


def test_a_wrong_reply_fails_a_rate() -> None:
    one = steady()
    one.intervals["query"][0].failures = {"wrong: golden": 1}
    assert verdict.holds([one], read_objectives("p99=500ms")) == ("fails", "12 wrong replies")


def test_a_flow_that_is_not_there_is_named_as_the_reason(tmp_path: Path) -> None:
    judged = objectives('[[objective]]\nflow = "absent"\np99_ms = 500\n', tmp_path)
    assert verdict.holds([steady()], judged) == ("fails", "flow absent: no such flow")


def test_a_p999_is_judged_by_thousands_of_replies() -> None:
    assert verdict.holds([steady(0.1)], read_objectives("p999=500ms"))[0] == "unclear"
    assert verdict.holds([steady(0.1)] * 5, read_objectives("p999=500ms"))[0] == "holds"


@pytest.mark.parametrize("bound", ["failure_share = 0.5", "throughput_share = 0.1", "p99_ms = 1000"])
def test_what_was_not_due_may_be_due_yet(bound: str, tmp_path: Path) -> None:
    one = measured([interval([0.1] * 50)] * 12, idle=[interval()] * 12)
    judged = objectives(f'[[objective]]\nflow = "idle"\n{bound}\n', tmp_path)
    assert verdict.holds([one], judged) == ("unclear", "flow idle: nothing was due")
