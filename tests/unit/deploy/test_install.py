"""Installation into `.venv`, with pip and uv replaced: what is installed, in what order, and what is kept."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from deploy import install


class Commands:
    """Replaces `install.run`: records the commands; those that contain a `failing` text fail."""

    def __init__(self, *failing: str, cuda: str = "", pip_config: str = "") -> None:
        self.ran: list[str] = []
        self._failing = failing
        self._cuda = cuda
        self._pip_config = pip_config

    def __call__(self, command: list[str], *, visible: bool = False) -> str:
        line = " ".join(command)
        self.ran.append(line)
        if any(part in line for part in self._failing):
            raise install.Failed(f"`{line}` failed")
        if "-m venv" in line:
            (install.VENV / "bin").mkdir()
            install.PYTHON.touch()
        if "config list" in line:
            return self._pip_config
        return f"{install.VENV}\n" if "purelib" in line else f"{self._cuda}\n"

    def uv(self) -> list[str]:
        """What uv installed, step by step, without the options that every step has."""
        calls = [line.partition(" -m uv pip install ")[2] for line in self.ran]
        return [call.partition(" --python ")[0] for call in calls if call]

    @property
    def created_venv(self) -> bool:
        return any("-m venv" in line for line in self.ran)


SetUp = Callable[..., Commands]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "STAMP", tmp_path / ".venv" / ".triptych")
    monkeypatch.setattr(install, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    (tmp_path / "pyproject.toml").write_text("[project]")
    return tmp_path


@pytest.fixture
def set_up(clone: Path, monkeypatch: pytest.MonkeyPatch) -> SetUp:
    """Sets up `.venv` and gives the commands that ran."""

    def set_up(engine: str, *extras: str, commands: Commands | None = None) -> Commands:
        commands = commands or Commands()
        monkeypatch.setattr(install, "run", commands)
        install.set_up(engine, set(extras))
        return commands

    return set_up


def test_second_run_does_nothing(set_up: SetUp) -> None:
    set_up("cpu")
    assert set_up("cpu").ran == []


def test_changed_project_is_updated_in_place(clone: Path, set_up: SetUp) -> None:
    set_up("gpu", "ray")
    (clone / "pyproject.toml").write_text("[project] # changed")
    commands = set_up("gpu")
    assert commands.uv() == [f"--editable {clone}[gpu,ray]"]
    assert not commands.created_venv


def test_other_engine_replaces_venv(clone: Path, set_up: SetUp) -> None:
    set_up("cpu")
    assert set_up("gpu").created_venv
    assert not (clone / ".venv" / "triptych-torchvision.pth").exists()


def test_killed_installation_is_replaced(set_up: SetUp) -> None:
    set_up("cpu")
    install.STAMP.write_text(install.UNFINISHED)
    assert set_up("cpu").created_venv


def test_failed_installation_is_resumed(set_up: SetUp) -> None:
    with pytest.raises(install.Failed):
        set_up("cpu", commands=Commands("--editable"))
    commands = set_up("cpu")
    assert not commands.created_venv
    assert any("--editable" in step for step in commands.uv())


def test_foreign_venv_is_left_alone(clone: Path, set_up: SetUp) -> None:
    (clone / ".venv").mkdir()
    with pytest.raises(install.Failed, match="move it away"):
        set_up("cpu")
    assert list((clone / ".venv").iterdir()) == []


def test_cpu_torch_comes_first(clone: Path, set_up: SetUp) -> None:
    torch, project = set_up("cpu").uv()
    assert torch == f"--no-deps {install.TORCH_CPU}"
    assert project.endswith(f"--editable {clone}[cpu]")
    assert "torchvision_ops" in (clone / ".venv" / "triptych-torchvision.pth").read_text()


def test_pytorch_index_is_the_fallback(set_up: SetUp) -> None:
    commands = Commands(f"--no-deps {install.TORCH_CPU}")
    _, fallback, project = set_up("cpu", commands=commands).uv()
    assert fallback == (
        f"--no-deps --index {install.TORCH_CPU_INDEX} {install.TORCH_CPU} {install.TORCHVISION}+cpu"
    )
    assert install.TORCH_CPU_INDEX not in project


def test_missing_cpu_torch_is_explained(set_up: SetUp) -> None:
    with pytest.raises(install.Failed, match="pip config set"):
        set_up("cpu", commands=Commands("--no-deps"))


def test_cuda_torch_is_refused_for_cpu(set_up: SetUp) -> None:
    with pytest.raises(install.Failed, match=r"built for CUDA 13\.0"):
        set_up("cpu", commands=Commands(cuda="13.0"))


def test_cuda_only_packages_are_excluded(clone: Path, set_up: SetUp) -> None:
    excludes = clone / ".venv" / "excludes.txt"
    assert f"--excludes {excludes}" in set_up("cpu").uv()[-1]
    assert excludes.read_text().split() == ["torchaudio", "torchcodec"]
    assert not any("--excludes" in step for step in set_up("gpu").uv())


def test_extra_is_added_without_reinstall(set_up: SetUp) -> None:
    set_up("gpu")
    assert set_up("gpu", "loadtest").uv() == ["--requirements pyproject.toml --extra=loadtest"]
    assert set_up("gpu", "ray").uv() == ["--requirements pyproject.toml --extra=loadtest --extra=ray"]


@pytest.mark.parametrize("extras", [(), ("loadtest",), ("ray",), ("loadtest", "ray", "dev")])
def test_dev_contains_other_extras(set_up: SetUp, extras: tuple[str, ...]) -> None:
    set_up("gpu", "dev")
    assert set_up("gpu", *extras).ran == []


def test_contained_extras_match_pyproject() -> None:
    project = Path(install.__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    for extra, contained in install.CONTAINED.items():
        [listed] = [line for line in extras[extra] if line.startswith("triptych[")]
        assert contained <= set(listed.removeprefix("triptych[").removesuffix("]").split(","))


def test_failed_extra_is_tried_again(set_up: SetUp) -> None:
    set_up("gpu")
    with pytest.raises(install.Failed):
        set_up("gpu", "ray", commands=Commands("--extra=ray"))
    commands = set_up("gpu", "ray")
    assert commands.uv()
    assert not commands.created_venv


def test_uv_gets_pip_settings(set_up: SetUp) -> None:
    listed = """
:env:.find-links='/wheels'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/not/used'
global.index-url='https://mirror.example/simple'
global.no-index='false'
global.timeout='60'
install.constraint='/constraints.txt'
"""
    commands = set_up("gpu", commands=Commands(pip_config=listed))
    [project] = [line for line in commands.ran if "--editable" in line]
    words = project.split()
    options = set(pairwise(words))
    assert {
        ("--default-index", "https://mirror.example/simple"),
        ("--index", "https://one.example/simple"),
        ("--index", "https://two.example/simple"),
        ("--find-links", "/wheels"),
        ("--constraints", "/constraints.txt"),
    } <= options
    assert "/not/used" not in words
    assert "--no-index" not in words


def test_no_index_is_passed_on(set_up: SetUp) -> None:
    commands = set_up("gpu", commands=Commands(pip_config="global.no-index='true'"))
    [project] = [line for line in commands.ran if "--editable" in line]
    assert "--no-index" in project


def test_pip_config_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels/here")
    assert "/wheels/here" in install.pip_settings()


def test_driver_lists_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.detect_engine() == "cpu"
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Something (UUID: GPU-0)'\n")
    smi.chmod(0o755)
    assert install.detect_engine() == "gpu"
    smi.write_text("#!/bin/sh\necho 'No devices found.'\nexit 6\n")
    assert install.detect_engine() == "cpu"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'Unable to determine the device handle' >&2; exit 15", "device handle"),
        ("exit 9", "exit code 9"),
        ("sleep 9", "timed out"),
    ],
)
def test_silent_driver_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    real = subprocess.run
    monkeypatch.setattr(
        install.subprocess, "run", lambda command, **options: real(command, **options | {"timeout": 1})
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    with pytest.raises(install.Failed, match=rf"{said}(.|\n)*ENGINE=gpu(.|\n)*ENGINE=cpu"):
        install.detect_engine()


def test_gpu_venv_is_not_replaced_unasked(
    clone: Path, set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(clone))
    assert install.choose_engine() == "cpu"
    set_up("gpu")
    with pytest.raises(install.Failed, match="ENGINE=cpu"):
        install.choose_engine()
    set_up("cpu")
    assert install.choose_engine() == "cpu"


def test_unsupported_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(install.Failed, match=r"3\.11 to 3\.13 is needed(.|\n)*PYTHON="):
        install.check_python()


def test_failed_command_shows_its_output() -> None:
    with pytest.raises(install.Failed, match=r"exit code 3\nthe reason"):
        install.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


def test_needs_only_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", install.__file__, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
