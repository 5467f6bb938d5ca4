"""A load test of the demo as an operator runs it, with objectives that decide the exit code."""

import os
import subprocess
import sys
from pathlib import Path

from loadtests import results
from loadtests.results import Run
from loadtests.server_processes import Deployment

OBJECTIVES = Path(__file__).with_name("objectives.toml")


def failures(run: Run) -> set[str]:
    """The kinds of them."""
    return {
        kind
        for measured in run.segments
        for intervals in measured.intervals.values()
        for interval in intervals
        for kind in interval.failures
    }


def test_a_day_s_mix_holds_its_objectives(deployment: Deployment, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests", "run", "--url", deployment.url, "--scenario", "mix"]
    command += ["--rate", "3", "--seconds", "10", "--seed", "ci", "--slo", str(OBJECTIVES)]
    environment = os.environ | {"WORKER_TOKEN": deployment.token}
    for number in range(2):
        out = ["--out", str(tmp_path / str(number))]
        done = subprocess.run(command + out, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        run = results.read(tmp_path / str(number))
        assert (run.golden.complaints, failures(run)) == ([], set()), done.stdout
        if done.returncode == 0:
            break
        # The p99 of so few queries is the slowest of them, which one stall of the machine decides.
    assert done.returncode == 0, done.stdout
    # Every flow was asked for before the load, with real engines: texts, code, images, late chunking.
    assert set(run.idle) == set(run.segments[0].intervals)
    assert all(idle.tokens > 0 for idle in run.idle.values())
    panels = {series.panel for series in run.series}
    assert {"queue", "engine", "served"} <= panels
    assert any("worker" in series.name for series in run.series)
