"""The wheel holds what is needed at run time, and runs beside other packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from triptych.loadtests.server_processes import Process, free_port

ROOT = Path(__file__).parents[2]
FOLDERS = ("router", "workers", "deploy", "loadtests")
# Needs the network, and a Python that is here.
PYTHONS = ("3.11", "3.12", "3.13")


def run(*command: object, path: Path | str = "") -> str:
    """Output of a command that has to succeed, outside of the checkout; it imports from `path` first."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[str]:
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    return [name for name in listed.splitlines() if os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because the build leaves files in the source."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    build = ("-m", "uv", "build", "--wheel", "--offline", "--no-build-isolation", "--python", sys.executable)
    run(sys.executable, *build, "--out-dir", out, source)
    [wheel] = out.glob("*.whl")
    return wheel


def in_wheel(name: str) -> bool:
    """Whether a file of the checkout belongs into the wheel: all code, and the data that code reads.

    Of the data of deploy/, that is Ray's; manifests and images are for a checkout.
    """
    path = Path(name)
    top, *rest = path.parts
    if top == "triptych":
        return not (ROOT / name).is_symlink()
    return top in FOLDERS and (path.suffix == ".py" or top != "deploy" or rest[0] == "ray")


def test_wheel_holds_all_code_and_data(wheel: Path) -> None:
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    # All below the one name that it takes.
    assert found == {f"triptych/{name.removeprefix('triptych/')}" for name in tracked() if in_wheel(name)}


def test_installed_commands_find_their_data(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--target", site, wheel)
    command = (sys.executable, "-m", "triptych")
    assert str(site) in run(sys.executable, "-c", "import triptych; print(triptych)", path=site)
    assert "--pools" in run(*command, "serve", "--help", path=site)
    assert "random weights" in run(*command, "tiny", "--nano", tmp_path / "tiny", path=site)
    assert "interactive" in run(*command, "loadtest", "scenarios", path=site)
    assert "It fits" in run(*command, "ray", "plan", "--nodes=cpus=8,memory=64", path=site)


@pytest.mark.long
@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_it(wheel: Path, tmp_path: Path, version: str) -> None:
    find = (sys.executable, "-m", "uv", "python", "find", "--no-python-downloads", "--system", version)
    python = subprocess.run(find, capture_output=True, text=True, check=False).stdout.strip()
    if not python:
        pytest.skip(f"Python {version} is not here")
    run(python, "-m", "venv", tmp_path)
    bin_ = tmp_path / "bin"
    [site] = tmp_path.glob("lib/python3*/site-packages")
    before = {path.name for path in site.iterdir()}

    run(bin_ / "pip", "install", wheel)
    assert "router" in run(bin_ / "triptych", "--help")
    run(bin_ / "python", "-c", "from triptych import AsyncClient, Client, Image")
    added = {path.name for path in site.iterdir()} - before
    assert not {"torch", "vllm", "ray", "locust", "pydantic", "aiohttp"} & added
    assert not {*FOLDERS, "tests", "examples"} & added
    refused = subprocess.run([bin_ / "triptych", "router"], capture_output=True, text=True, check=False)
    assert "pip install 'triptych[router]'" in refused.stderr

    run(bin_ / "pip", "install", f"{wheel}[router]")
    assert "sha256" in run(bin_ / "triptych", "keys", "alice")
    port = free_port()
    workers = '[{"targets": ["127.0.0.1:1"], "labels": {"task": "code"}}]'
    argv = ["router", "--port", str(port), "--workers", workers]
    router = Process(argv, {"PYTHONPATH": ""}, tmp_path / "log", bin_ / "triptych")
    try:
        router.wait_ready(f"http://127.0.0.1:{port}/live")
    finally:
        assert router.stop() == 0
