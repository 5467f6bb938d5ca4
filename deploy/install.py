"""Sets up `.venv`: picks the engine for this machine and installs it with everything else.

    python3 deploy/install.py [--engine auto|cpu|gpu] [--ray] [--loadtest] [--dev]

Runs before anything is installed, so it needs the standard library only, and parses on any Python 3.8 or
newer in order to say which Python it wants. A finished `.venv` is left as it is until pyproject.toml, the
engine or the Python changes.
"""

from __future__ import annotations

import argparse
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

TORCH_CPU = "torch==2.13.0+cpu"
TORCHVISION = "torchvision==0.28.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
UNWANTED = ("torchaudio", "torchcodec")
UNFINISHED = "unfinished"
# Behind the key of an installation: what it has besides the engine.
EXTRAS = ("dev", "loadtest", "ray")

NO_CPU_TORCH = """
{torch} was not found. It is not on PyPI: it comes from PyTorch's own index,
  {index}
which could not be used from here. Either make that address reachable, or download the wheel elsewhere and
tell pip where it lies, then run the same command again:
  pip config set global.find-links /folder/with/the/wheel
"""
NOT_A_CPU_TORCH = """
The torch in {venv} is built for CUDA {cuda}, but this is the CPU engine. Remove it and run the same
command again:
  rm -rf {venv}
If it comes back, pip's configuration (`pip config list`) prefers another torch: take that out.
"""
NO_ANSWER = """
{error}
Mend the driver (after an update it takes a reboot), or say what to set up:
  make ENGINE=gpu ...
  make ENGINE=cpu ...
"""
NO_GPU_NOW = """
{venv} has vLLM for GPUs, but no NVIDIA GPU is found here now. Say what to set up:
  make ENGINE=gpu ...   keeps it
  make ENGINE=cpu ...   sets up anew, for CPUs
"""


class Failed(Exception):
    """Setting up cannot go on; the text says why and what to do."""


class NoAnswer(Exception):
    """The NVIDIA driver is there and does not say which GPUs there are."""


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
        # Two commands in one clone: the second waits, then finds the work done.
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
    """Refuse a Python that the engine has no builds for, and a system other than Linux."""
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
    """The engine for this machine; a `.venv` for GPUs is not given up for CPUs without being told."""
    engine = detect_engine()
    done = STAMP.read_text() if STAMP.exists() else ""
    if engine == "cpu" and done.startswith("gpu "):
        raise Failed(NO_GPU_NOW.format(venv=VENV))
    return engine


def detect_engine() -> str:
    """`gpu` where the NVIDIA driver lists a GPU, `cpu` where there is no driver or no GPU.

    Raises Failed when the driver is there and does not say, as after an update until a reboot.
    """
    try:
        return "gpu" if "GPU " in ask_driver("-L") else "cpu"
    except NoAnswer as error:
        raise Failed(NO_ANSWER.format(error=error)) from None


def ask_driver(*arguments: str) -> str:
    """What `nvidia-smi` prints; nothing where there is none, or it finds no GPU. Raises `NoAnswer`."""
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
    """Bring `.venv` up to date for `engine`, with the extras `wanted`; returns at once when it is."""
    done = STAMP.read_text() if STAMP.exists() else ""
    # What once was installed stays up to date too.
    extras = [extra for extra in EXTRAS if extra in wanted or extra in done.split()]
    key = " ".join([install_key(engine), *extras])
    if done == key:
        return
    started = time.monotonic()
    wants = "vLLM for NVIDIA GPUs" if engine == "gpu" else "vLLM for CPUs (no NVIDIA GPU is used)"
    say(
        f"setting up {VENV.name}: {wants}, Python {platform.python_version()}; this takes a few minutes, once"
    )

    if VENV.exists() and not done:
        raise Failed(f"{VENV} is there already and was not made by this; move it away first.")
    base = " ".join(key.split()[:2])
    if done and not done.startswith(base):
        # Another engine or Python, or an installation that was killed half way: nothing in it can be trusted.
        shutil.rmtree(VENV)
    if not VENV.exists():
        create_venv()
    STAMP.write_text(UNFINISHED)
    try:
        if engine == "cpu":
            install_cpu_torch()
        say(f"installing the project with its extra `{engine}`")
        pip("install", "--editable", f"{ROOT}[{','.join([engine, *extras])}]")
        if engine == "cpu":
            install_torchvision_hook()
            # Built for CUDA and of no use here, but transformers imports them where they are.
            pip("uninstall", "--yes", *UNWANTED)
        say("checking that vLLM can be imported")
        check_engine(engine)
    except Failed:
        # pip rolls back what it could not finish, so the next run can go on from there.
        STAMP.write_text(" ".join([base, *extras]))
        raise
    STAMP.write_text(key)
    say(f"done in {time.monotonic() - started:.0f} s")


def install_key(engine: str) -> str:
    """What an installation depends on: engine, Python, and what is asked for."""
    content = (ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
    version = "{}.{}".format(*sys.version_info[:2])
    return f"{engine} {version} {hashlib.sha256(content).hexdigest()}"


def create_venv() -> None:
    VENV.mkdir()
    STAMP.write_text(UNFINISHED)
    try:
        run([sys.executable, "-m", "venv", str(VENV)])
    except Failed as reason:
        shutil.rmtree(VENV)
        raise Failed(
            f"{reason}\nDebian and Ubuntu keep venv in a package of its own: python3-venv."
        ) from None


def install_cpu_torch() -> None:
    """torch and torchvision built for CPU, before anything can bring in those built for CUDA.

    The only step that asks PyTorch's index, and without dependencies: an index that cannot be reached costs
    pip its time-outs once for every package looked up there.
    """
    say(f"installing {TORCH_CPU}")
    try:
        pip("install", "--no-deps", "--index-url", TORCH_CPU_INDEX, "--timeout", "5", "--retries", "1",
            TORCH_CPU, TORCHVISION + "+cpu", quiet_failure=True)  # fmt: skip
    except Failed:
        say(f"  {TORCH_CPU_INDEX} does not give both; trying where pip is configured to look")
        try:
            pip("install", "--no-deps", TORCH_CPU, quiet_failure=True)
        except Failed:
            raise Failed(NO_CPU_TORCH.format(torch=TORCH_CPU, index=TORCH_CPU_INDEX)) from None


def install_torchvision_hook() -> None:
    """Have every interpreter of the environment start with `workers/torchvision_ops.py`."""
    site_packages = run([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    # Python reads these files in the order of their names, and this one needs the project's own.
    hook = Path(site_packages) / "triptych-torchvision.pth"
    hook.write_text("import workers.torchvision_ops; workers.torchvision_ops.install()\n")


def check_engine(engine: str) -> None:
    """vLLM imports with all that it imports, and the CPU engine has a CPU torch."""
    code = "import torch, torchvision, vllm; from vllm import PoolingParams; print(torch.version.cuda or '')"
    cuda = run([str(PYTHON), "-c", code]).splitlines()[-1].strip()
    if engine == "cpu" and cuda:
        raise Failed(NOT_A_CPU_TORCH.format(venv=VENV, cuda=cuda))


def pip(*arguments: str, quiet_failure: bool = False) -> None:
    run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], show=not quiet_failure)


def run(command: list[str], show: bool = True) -> str:
    """What a command prints to stdout. Raises Failed, after showing the end of its output, when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        if show:
            sys.stderr.write("\n".join((done.stdout + done.stderr).splitlines()[-60:]) + "\n")
        raise Failed("`{}` failed with exit code {}".format(" ".join(command), done.returncode))
    return done.stdout


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
