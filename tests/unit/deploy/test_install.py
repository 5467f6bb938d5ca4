"""Installation into `.venv`, with pip and uv replaced: what is installed, in what order, and what is kept."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.deploy.fakes import Driver
from triptych.deploy import install
from triptych.deploy.install import TORCH_CPU, TORCH_CPU_INDEX, TORCHVISION, Failed, Installation


class Commands:
    """Replaces `install.run`: records the commands; those that contain a `failing` text fail."""

    def __init__(self, venv: Path, *failing: str, cuda: str = "", pip_config: str = "") -> None:
        self.ran: list[str] = []
        self._venv = venv
        self._failing = failing
        self._cuda = cuda
        self._pip_config = pip_config

    def __call__(self, command: list[str], *, visible: bool = False) -> str:
        line = " ".join(command)
        self.ran.append(line)
        if any(part in line for part in self._failing):
            raise Failed(f"`{line}` failed")
        if "config list" in line:
            return self._pip_config
        return f"{self._venv}\n" if "purelib" in line else f"{self._cuda}\n"

    @property
    def uv(self) -> list[str]:
        """What uv installed, step by step, without the options that every step has."""
        calls = [line.partition(" -m uv pip install ")[2] for line in self.ran]
        return [call.partition(" --python ")[0] for call in calls if call]

    @property
    def created_venv(self) -> bool:
        return any("-m venv" in line for line in self.ran)


SetUp = Callable[..., Commands]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]")
    return tmp_path


@pytest.fixture
def set_up(clone: Path) -> SetUp:
    """Sets up `.venv` and gives the commands that ran."""

    def set_up(engine: str, *extras: str, failing: tuple[str, ...] = (), **output: str) -> Commands:
        commands = Commands(clone / ".venv", *failing, **output)
        Installation(clone, commands).set_up(engine, set(extras))
        return commands

    return set_up


def test_changed_project_is_updated_in_place(clone: Path, set_up: SetUp) -> None:
    set_up("gpu", "ray")
    (clone / "pyproject.toml").write_text("[project] # changed")
    commands = set_up("gpu")
    assert commands.uv == [f"--editable {clone}[gpu,ray]"]
    assert not commands.created_venv


@pytest.mark.parametrize("killed", [False, True])
def test_other_engine_or_killed_installation_is_replaced(clone: Path, set_up: SetUp, killed: bool) -> None:
    set_up("cpu")
    if killed:
        (clone / ".venv" / ".triptych").write_text(install.UNFINISHED)
    assert set_up("cpu" if killed else "gpu").created_venv
    assert (clone / ".venv" / "triptych-torchvision.pth").exists() == killed


@pytest.mark.parametrize(("done", "extras", "failing"), [((), (), "--editable"), (("gpu",), ("ray",), "ray")])
def test_failed_installation_is_resumed(
    set_up: SetUp, done: tuple[str, ...], extras: tuple[str, ...], failing: str
) -> None:
    for engine in done:
        set_up(engine)
    with pytest.raises(Failed):
        set_up("gpu", *extras, failing=(failing,))
    commands = set_up("gpu")
    assert not commands.created_venv
    assert all(extra in commands.uv[-1] for extra in extras)


def test_foreign_venv_is_left_alone(clone: Path, set_up: SetUp) -> None:
    (clone / ".venv").mkdir()
    with pytest.raises(Failed, match="move it away"):
        set_up("cpu")
    assert list((clone / ".venv").iterdir()) == []


def test_cpu_torch_comes_first(clone: Path, set_up: SetUp) -> None:
    torch, project = set_up("cpu").uv
    assert torch == f"--no-deps {TORCH_CPU}"
    assert project == f"--excludes {clone}/.venv/excludes.txt --editable {clone}[cpu]"
    assert (clone / ".venv" / "excludes.txt").read_text().split() == ["torchaudio", "torchcodec"]
    assert "torchvision_ops" in (clone / ".venv" / "triptych-torchvision.pth").read_text()


def test_pytorch_index_is_the_fallback(set_up: SetUp) -> None:
    _, fallback, project = set_up("cpu", failing=(f"--no-deps {TORCH_CPU}",)).uv
    assert fallback == f"--no-deps --index {TORCH_CPU_INDEX} {TORCH_CPU} {TORCHVISION}+cpu"
    assert TORCH_CPU_INDEX not in project


def test_missing_cpu_torch_is_explained(set_up: SetUp) -> None:
    with pytest.raises(Failed, match="pip config set"):
        set_up("cpu", failing=("--no-deps",))


def test_cuda_torch_is_refused_for_cpu(set_up: SetUp) -> None:
    with pytest.raises(Failed, match=r"built for CUDA 13\.0"):
        set_up("cpu", cuda="13.0")


def test_extra_is_added_without_reinstall(set_up: SetUp) -> None:
    set_up("gpu")
    assert set_up("gpu", "loadtest").uv == ["--requirements pyproject.toml --extra=loadtest"]
    assert set_up("gpu", "ray").uv == ["--requirements pyproject.toml --extra=loadtest --extra=ray"]
    set_up("gpu", "dev")
    assert set_up("gpu", "loadtest", "ray", "dev").ran == []


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
    [project] = [line for line in set_up("gpu", pip_config=listed).ran if "--editable" in line]
    words = project.split()
    assert set(pairwise(words)) >= {
        ("--default-index", "https://mirror.example/simple"),
        ("--index", "https://one.example/simple"),
        ("--index", "https://two.example/simple"),
        ("--find-links", "/wheels"),
        ("--constraints", "/constraints.txt"),
    }
    assert not {"/not/used", "--no-index"} & set(words)
    offline = set_up("cpu", pip_config="global.no-index='true'").ran
    assert all("--no-index" in line for line in offline if "uv pip install" in line)


def test_pip_config_is_read(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = Installation(clone)
    installation.python = sys.executable
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels/here")
    assert "/wheels/here" in installation.pip_settings()


def test_driver_lists_the_gpus(clone: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = Installation(clone)
    monkeypatch.setenv("PATH", str(clone))
    assert installation.detect_engine([]) == "cpu"
    driver("echo 'GPU 0: NVIDIA Something (UUID: GPU-0)'")
    assert installation.detect_engine([]) == "gpu"
    driver("echo 'No devices found.'; exit 6")
    assert installation.detect_engine([]) == "cpu"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'Unable to determine the device handle' >&2; exit 15", "device handle"),
        ("exit 9", "exit code 9"),
    ],
)
def test_broken_driver_is_an_error(clone: Path, driver: Driver, script: str, said: str) -> None:
    driver(script)
    with pytest.raises(Failed, match=rf"{said}(.|\n)*ENGINE=gpu(.|\n)*ENGINE=cpu"):
        Installation(clone).detect_engine([])


def test_silent_driver_is_an_error(driver: Driver) -> None:
    driver("sleep 9")
    with pytest.raises(install.NoAnswer, match="timed out"):
        install.ask_driver("-L", seconds=0.1)


def test_gpu_venv_is_not_replaced_unasked(
    clone: Path, set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    set_up("gpu")
    with pytest.raises(Failed, match="ENGINE=cpu"):
        set_up("auto")
    set_up("cpu")
    assert set_up("auto").ran == []


def test_unsupported_python_is_refused() -> None:
    with pytest.raises(Failed, match=r"3\.11 to 3\.13 is needed(.|\n)*PYTHON="):
        install.check_python((3, 10))


def test_failed_command_shows_its_output() -> None:
    with pytest.raises(Failed, match=r"exit code 3\nthe reason"):
        install.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


def test_needs_only_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", install.__file__, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
