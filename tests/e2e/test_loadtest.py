"""A load test of the demo as an operator runs it, with objectives that decide the exit code."""

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.loadtests import results
from triptych.loadtests.results import Run
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


def failures(run: Run) -> set[str]:
    """The kinds of them."""
    return {
        kind
        for measured in run.segments
        for intervals in measured.intervals.values()
        for interval in intervals
        for kind in interval.failures
    }


def test_mix_holds_its_objectives(deployment: Deployment, tmp_path: Path) -> None:
    """No objective depends on the speed of the machine."""
    scenario = tmp_path / "mix.toml"
    scenario.write_text(SCENARIO)
    command = [sys.executable, "-m", "triptych.loadtests", "run", "--url", deployment.url]
    command += ["--scenario", str(scenario), "--rate", "2", "--seconds", "5", "--seed", "ci"]
    command += ["--slo", "failures=0%", "--out", str(tmp_path)]
    environment = os.environ | {"WORKER_TOKEN": deployment.token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    run = results.read(tmp_path)
    assert (run.golden.complaints, failures(run)) == ([], set()), done.stdout
    panels = {series.panel for series in run.series}
    assert {"queue", "engine", "served"} <= panels
    assert any("worker" in series.name for series in run.series)
