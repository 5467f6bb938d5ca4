"""`python -m deploy local`: what it refuses before anything starts."""

import os
import socket
from pathlib import Path

import pytest

from deploy.local import machine
from deploy.local.command import main, make_plan
from deploy.local.plan import PlanError
from loadtests.processes import free_port


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("setting", ["ROUTER_PORT", "DEPLOY_WORKER_PORT"])
def test_a_port_in_use_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str
) -> None:
    monkeypatch.setenv("ROUTER_PORT", str(free_port()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(setting, str(port))
        assert main([]) == os.EX_CONFIG
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert setting in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"), [("DEPLOY_POOLS", "nonsense"), ("ROUTER_PORT", "nonsense"), ("DEPLOY_TYPO", "1")]
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main([]) == os.EX_CONFIG
    assert name in capsys.readouterr().err


def test_settings_are_read_from_the_env_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what the file sets shall not outlive the test
    (tmp_path / ".env").write_text("DEPLOY_POOLS=nonsense\n")
    assert main([]) == os.EX_CONFIG
    assert "DEPLOY_POOLS" in capsys.readouterr().err


def test_gpus_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEPLOY_GPUS", "0")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([]) == os.EX_CONFIG
    assert "DEPLOY_GPUS" in capsys.readouterr().err


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A machine with vLLM for GPUs, whose nvidia-smi does what `script` says."""
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (binaries / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda _: "0.32.0")


def test_a_driver_that_fails_does_not_bring_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi(tmp_path, monkeypatch, "echo 'Failed to initialize NVML'; exit 18")
    with pytest.raises(PlanError, match="Failed to initialize NVML"):
        make_plan()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "DEPLOY_POOLS" in capsys.readouterr().out
