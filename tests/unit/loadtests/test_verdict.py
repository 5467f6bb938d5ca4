"""The verdict on one rate of a search."""

from pathlib import Path

import pytest

from tests.unit.loadtests.sample_run import interval, measured, steady
from tests.unit.loadtests.test_slo import bounded, objectives
from triptych.loadtests import slo
from triptych.loadtests.objectives import read_objectives
from triptych.loadtests.results import Measured

RARE = measured([interval([0.1] * 50)] * 12, slow=[interval([0.1])] * 12, idle=[interval()] * 12)


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(0.1), "p99=500ms", "holds"),
        (steady(1.0), "p99=500ms", "fails"),
        (steady(0.1, failures=5), "failures=1%", "fails"),
        (steady(0.1), "failures=0.1%", "holds"),
        # 50 of 60 requests per second are answered: the queue grows.
        (steady(0.1, sent=60), "p99=500ms", "fails"),
        (measured([interval(sent=50)] * 10), "p99=500ms", "fails"),
        # Too few replies for a p99, and for a p99.9.
        (measured([interval([0.1] * 10)] * 10), "p99=500ms", "unclear"),
        (steady(0.1), "p999=500ms", "unclear"),
        # One in ten is slow, so the bound lies within the interval.
        (measured([interval([0.1] * 45 + [0.2] * 5)] * 10), "p90=150ms", "unclear"),
    ],
)
def test_rate_holds_fails_or_is_unclear(one: Measured, text: str, found: str) -> None:
    assert slo.rule([one], read_objectives(text))[0] == found


@pytest.mark.parametrize(
    ("one", "text", "found"),
    [
        (steady(), "throughput = 60", "fails"),
        (steady(), "throughput = 40", "holds"),
        (steady(), 'segments = ["steady"]\np99_ms = 1', "fails"),
        (steady(), 'flow = "absent"\nfailure_share = 0.01', "fails"),
        (RARE, 'flow = "slow"\np99_ms = 500', "unclear"),
        # Nothing was due yet.
        (RARE, 'flow = "idle"\nfailure_share = 0.5', "unclear"),
        (RARE, 'flow = "idle"\np99_ms = 1000', "unclear"),
    ],
)
def test_every_bound_of_a_rate_counts(one: Measured, text: str, found: str, tmp_path: Path) -> None:
    assert slo.rule([one], bounded(text, tmp_path))[0] == found


def test_rarest_judged_flow_decides_how_many_requests(tmp_path: Path) -> None:
    text = '[[objective]]\nflow = "{}"\n{} = 500\n'
    flows = (("query", "p999_ms"), ("slow", "p99_ms"), ("none", "capacity"))
    judged = objectives("".join(text.format(*pair) for pair in flows), tmp_path)
    assert slo.rule([RARE], judged) == ("unclear", "flow query: 600 of 2000 replies", True)
    assert slo.requests_needed(judged, {"query": 0.5, "slow": 0.02}) == pytest.approx(200 / 0.02)
    assert slo.requests_needed(judged, {"query": 0.5, "slow": 0.5}) == pytest.approx(2000 / 0.5)


@pytest.mark.parametrize(("text", "met"), [("p90=100ms", False), ("p90=150ms", True)])
def test_figures_meet_an_objective_however_close(text: str, met: bool) -> None:
    one = measured([interval([0.1] * 45 + [0.2] * 5)] * 10)
    assert slo.rule([one], read_objectives(text)).met is met


def test_wrong_reply_fails_a_rate() -> None:
    one = steady()
    one.intervals["query"][0].failures = {"wrong: golden": 1}
    assert slo.rule([one], read_objectives("p99=500ms"))[0] == "fails"
