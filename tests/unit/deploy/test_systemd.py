"""The systemd unit, checked by systemd-analyze, and its settings."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.deploy.manifests import ROOT
from triptych.deploy.settings import DeploySettings

FOLDER = ROOT / "deploy" / "systemd"
UNIT = (FOLDER / "triptych.service").read_text()


def analyze(*arguments: str | Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, of Debian's package systemd")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def value(name: str) -> str:
    [found] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    here = tmp_path / "triptych.service"
    here.write_text(UNIT.replace("/opt/triptych/.venv/bin/python", sys.executable))
    warnings = [line for line in analyze("verify", here).splitlines() if "triptych.service" in line]
    assert not warnings


def test_the_service_is_confined() -> None:
    # From 0, fully confined, to 100.
    analyze("security", "--offline=true", "--threshold=25", FOLDER / "triptych.service")


def test_it_stops_in_order_and_keeps_wrong_settings_down() -> None:
    assert value("KillMode") == "mixed"
    # The router, then the workers.
    assert float(value("TimeoutStopSec")) > 2 * DeploySettings.model_fields["stop_seconds"].default
    assert int(value("RestartPreventExitStatus")) == os.EX_CONFIG
