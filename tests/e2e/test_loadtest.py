"""A load test of the demo as an operator runs it, with objectives that decide the exit code."""

import os
import subprocess
import sys
from pathlib import Path

from loadtests import results
from loadtests.processes import Deployment

OBJECTIVES = Path(__file__).with_name("objectives.toml")


def test_a_day_s_mix_holds_its_objectives(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "loadtests", "run", "--url", deployment.url, "--scenario", "mix"]
    command += ["--rate", "3", "--seconds", "10", "--seed", "ci", "--slo", str(OBJECTIVES), "--out", str(out)]
    environment = os.environ | {"WORKER_TOKEN": deployment.token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    run = results.read(out)
    assert run.golden.complaints == []
    # Every flow was asked for before the load, with real engines: texts, code, images, late chunking.
    assert set(run.idle) == set(run.segments[0].intervals)
    assert all(idle.tokens > 0 for idle in run.idle.values())
    panels = {series.panel for series in run.series}
    assert {"queue", "engine", "served"} <= panels
    assert any("worker" in series.name for series in run.series)
