"""A load test of the demo as an operator runs it, with objectives that decide the exit code."""

from pathlib import Path

import pytest

from tests.fault.loadtest import loadtest
from triptych.loadtests.results import failure_counts
from triptych.loadtests.server_processes import Deployment

# Every kind of input, in requests that a CPU answers within a second.
SCENARIO = """
about = "Texts, code, images and documents."
languages = { en = 2, zh = 1 }
[[flows]]
name = "query"
weight = 6
task = "retrieval.query"
[[flows]]
name = "code"
task = "code.passage"
languages = { code = 1 }
inputs = 4
[[flows]]
name = "pair"
task = "text-matching"
inputs = 2
[[flows]]
name = "document"
task = "retrieval.passage"
late_chunking = true
inputs = 4
[[flows]]
name = "image"
task = "retrieval.passage"
images = 1.0
picture = { width = 112, height = 112 }
"""


async def test_mix_holds_its_objectives(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No objective depends on the speed of the machine."""
    scenario = tmp_path / "mix.toml"
    scenario.write_text(SCENARIO)
    monkeypatch.setenv("WORKER_TOKEN", deployment.token)
    load = ("--scenario", str(scenario), "--rate", "2", "--seconds", "5", "--seed", "ci")
    done = await loadtest(tmp_path, "run", deployment.url, *load, "--slo", "failures=0%")
    assert done.code == 0, done.output
    assert (done.run.golden.complaints, failure_counts(done.run.segments)) == ([], {}), done.output
    assert {"queue", "engine", "served"} <= {series.panel for series in done.run.series}
    assert any("worker" in series.name for series in done.run.series)
