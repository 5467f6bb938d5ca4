"""How growth is judged, and that the costs measured here are of work that is done."""

import pytest

from triptych.loadtests.bench.bench_report import markdown
from triptych.loadtests.bench.measure import Result, Row
from triptych.loadtests.bench.sections.growth import BATCH, exponent, of_queue, of_replicas


def test_exponent_is_that_of_the_steepest_part() -> None:
    assert exponent({1: 5.0, 10: 5.0, 100: 5.0}) == 0
    assert exponent({1: 5.0, 8: 5.0, 64: 40.0}) == pytest.approx(1)
    # Quadratic only at its end.
    assert exponent({1: 1.0, 10: 2.0, 100: 200.0}) == pytest.approx(2)


@pytest.mark.parametrize("with_keys", [False, True])
def test_queue_stays_as_deep_while_batches_pass(with_keys: bool) -> None:
    assert of_queue(10 * BATCH, with_keys=with_keys) > 0


def test_requests_of_the_simulation_are_served() -> None:
    assert of_replicas(2) > 0


def test_rows_without_requests_have_figures_only() -> None:
    row = Row(load="n replicas", system="n = 1", figures={"CPU ms": [0.5]})
    its = {"began": "2026-01-01 12:00", "machine": "a machine", "revision": "abc", "seconds": 3}
    text = markdown({"growth": Result(name="growth", title="growth", quick=False, rows=[row], **its)})
    assert "| n = 1 | CPU ms | 0.5 |" in text
    assert "0 of 0" not in text
