"""How `.venv` is set up, with pip replaced: what is installed in what order, and what is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import install


class Commands:
    """Takes the place of running commands; those that contain one of `failing` fail."""

    def __init__(self, *failing: str, cuda: str = "") -> None:
        self.ran: list[str] = []
        self._failing = failing
        self._cuda = cuda

    def __call__(self, command: list[str], show: bool = True) -> str:
        line = " ".join(command)
        self.ran.append(line)
        if any(part in line for part in self._failing):
            raise install.Failed(f"`{line}` failed")
        if "-m venv" in line:
            (install.VENV / "bin").mkdir()
            install.PYTHON.touch()
        return f"{install.VENV}\n" if "purelib" in line else f"{self._cuda}\n"

    def pip(self) -> list[str]:
        """What pip was asked to install, step by step."""
        calls = [line.partition(" -m pip --disable-pip-version-check ")[2] for line in self.ran]
        return [call.removeprefix("install ") for call in calls if call.startswith("install ")]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "STAMP", tmp_path / ".venv" / ".triptych")
    monkeypatch.setattr(install, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    (tmp_path / "pyproject.toml").write_text("[project]")
    return tmp_path


def set_up(
    monkeypatch: pytest.MonkeyPatch, engine: str, commands: Commands, *, dev: bool = False
) -> Commands:
    monkeypatch.setattr(install, "run", commands)
    install.set_up(engine, {"dev"} if dev else set())
    return commands


def test_a_second_run_has_nothing_to_do(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "cpu", Commands())
    assert set_up(monkeypatch, "cpu", Commands()).ran == []


def test_a_changed_project_is_installed_again_in_place(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "gpu", Commands())
    (clone / "pyproject.toml").write_text("[project] # changed")
    ran = set_up(monkeypatch, "gpu", Commands()).ran
    assert any("--editable" in line for line in ran)
    assert not any("-m venv" in line for line in ran)


def test_another_engine_starts_afresh(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "cpu", Commands())
    ran = set_up(monkeypatch, "gpu", Commands()).ran
    assert any("-m venv" in line for line in ran)
    assert not (clone / ".venv" / "triptych-torchvision.pth").exists()


def test_an_installation_that_was_killed_starts_afresh(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "cpu", Commands())
    install.STAMP.write_text(install.UNFINISHED)
    assert any("-m venv" in line for line in set_up(monkeypatch, "cpu", Commands()).ran)


def test_one_that_failed_goes_on_where_it_was(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(install.Failed):
        set_up(monkeypatch, "cpu", Commands("--editable"))
    ran = set_up(monkeypatch, "cpu", Commands()).ran
    assert not any("-m venv" in line for line in ran)
    assert any("--editable" in line for line in ran)


def test_a_venv_of_somebody_else_is_not_touched(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / ".venv").mkdir()
    with pytest.raises(install.Failed, match="move it away"):
        set_up(monkeypatch, "cpu", Commands())
    assert list((clone / ".venv").iterdir()) == []


def test_the_cpu_torch_comes_first_and_its_index_is_asked_once(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = set_up(monkeypatch, "cpu", Commands()).pip()
    assert "--no-deps" in first
    assert install.TORCH_CPU_INDEX in first
    assert first.endswith(f"{install.TORCH_CPU} {install.TORCHVISION}+cpu")
    assert rest == [f"--editable {clone}[cpu]"]
    assert "torchvision_ops" in (clone / ".venv" / "triptych-torchvision.pth").read_text()


def test_what_tests_need_is_added_once_and_kept(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "gpu", Commands())
    assert set_up(monkeypatch, "gpu", Commands(), dev=True).pip() == [f"--editable {clone}[gpu,dev]"]
    for dev in (True, False):
        assert set_up(monkeypatch, "gpu", Commands(), dev=dev).ran == []
    (clone / "pyproject.toml").write_text("[project] # changed")
    assert set_up(monkeypatch, "gpu", Commands()).pip() == [f"--editable {clone}[gpu,dev]"]
    # Others are added to it, and stay as well.
    commands = Commands()
    monkeypatch.setattr(install, "run", commands)
    install.set_up("gpu", {"ray"})
    assert commands.pip() == [f"--editable {clone}[gpu,dev,ray]"]


def test_what_cannot_be_imported_beside_a_cpu_torch_is_taken_out_at_the_end(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = set_up(monkeypatch, "cpu", Commands()).ran
    [taken_out] = [
        number for number, line in enumerate(ran) if "uninstall --yes torchaudio torchcodec" in line
    ]
    [installed] = [number for number, line in enumerate(ran) if "--editable" in line]
    assert installed < taken_out
    assert not any("uninstall" in line for line in set_up(monkeypatch, "gpu", Commands()).ran)


def test_without_that_index_pip_looks_where_it_is_configured_to(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second, _ = set_up(monkeypatch, "cpu", Commands("--index-url")).pip()
    assert second == f"--no-deps {install.TORCH_CPU}"


def test_no_cpu_torch_anywhere_says_what_to_do(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(install.Failed, match="pip config set"):
        set_up(monkeypatch, "cpu", Commands("--no-deps"))


def test_a_cuda_torch_under_the_cpu_engine_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(install.Failed, match=r"built for CUDA 13\.0"):
        set_up(monkeypatch, "cpu", Commands(cuda="13.0"))


def test_a_gpu_is_what_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_driver_that_does_not_answer_is_not_taken_for_no_gpu(
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


def test_a_venv_for_gpus_is_kept_where_none_is_found_until_it_is_said(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(clone))
    assert install.choose_engine() == "cpu"
    set_up(monkeypatch, "gpu", Commands())
    with pytest.raises(install.Failed, match="ENGINE=cpu"):
        install.choose_engine()
    set_up(monkeypatch, "cpu", Commands())
    assert install.choose_engine() == "cpu"


def test_a_python_without_builds_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(install.Failed, match=r"3\.11 to 3\.13 is needed(.|\n)*PYTHON="):
        install.check_python()


def test_what_failed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(install.Failed, match="exit code 3"):
        install.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    assert "the reason" in capsys.readouterr().err


def test_it_runs_without_anything_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", install.__file__, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
