"""The GPU benchmark as it runs without a GPU: the same code on the nano model."""

from pathlib import Path

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.loadtests.bench import __main__ as bench
from triptych.loadtests.bench.sections.gpu_figures import TOKENS

LOADS = (
    "20-token texts, concurrency 8",
    "128-token texts, concurrency 4",
    "32 texts of 20 tokens a request, concurrency 1",
)
SYSTEMS = ("(c) worker", "(d) router, worker")


def test_sections_measure_the_nano_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECTION_SECONDS", GUARD_SECONDS)
    sections = ("--only", "parity", "--only", "short")
    status = bench.main(["--gpu", "--size", "nano", *sections, "--out", str(tmp_path)])
    report = bench.read(tmp_path)
    assert status == 0, [result.error for result in report.values()]
    figures = report["parity"].figures
    assert min(figures["texts, least cosine"], figures["image, cosine"]) >= 0.99999
    # Otherwise any vectors would do.
    assert figures["two texts, cosine with each other"] < 0.999
    rows = report["short"].rows
    assert [(row.load, row.system) for row in rows] == [(load, one) for load in LOADS for one in SYSTEMS]
    for row in rows:
        assert row.failures == {}
        assert row.vectors_checked > row.vectors_wrong == 0
        assert row.figures[TOKENS][0] > row.items_per_second[0] > 0
