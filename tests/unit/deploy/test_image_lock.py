"""The locks of the images against the dependencies that they lock."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from triptych.deploy import install

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Those that deploy/docker/lock.sh names.
LOCKS = {"router": ["router", "tracing"], "worker-cpu": ["cpu"], "worker-gpu": ["gpu"], "ray": ["gpu", "ray"]}
# Their CPU builds are in torch-cpu.lock.
TORCH = ("torch", "torchvision")


def pinned(lock: str) -> dict[str, str]:
    text = (DOCKER / f"{lock}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))


def of_extras(names: Iterable[str]) -> Iterator[Requirement]:
    for name in names:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
            if requirement.name == "triptych":
                yield from of_extras(requirement.extras)
            else:
                yield requirement


def test_locks_are_of_these_extras() -> None:
    script = (DOCKER / "lock.sh").read_text()
    for lock, extras in LOCKS.items():
        (line,) = re.findall(rf"^lock {lock} (.*)$", script, re.MULTILINE)
        assert re.findall(r"--extra (\S+)", line) == extras


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_the_dependencies(lock: str) -> None:
    pins = pinned(lock)
    if lock == "worker-cpu":
        assert not pins.keys() & TORCH
        pins |= pinned("torch-cpu")
    for requirement in [*map(Requirement, PROJECT["dependencies"]), *of_extras(LOCKS[lock])]:
        version = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("lock", [*LOCKS, "torch-cpu"])
def test_every_pin_has_a_hash(lock: str) -> None:
    text = (DOCKER / f"{lock}.lock").read_text()
    pins = re.findall(r"^[a-z0-9._-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+", text, re.MULTILINE)
    assert len(pins) == len(pinned(lock)) > 1


def test_the_router_image_has_no_engine() -> None:
    assert not pinned("router").keys() & {"torch", "vllm", "ray", "transformers"}


def test_torch_is_the_one_that_install_takes() -> None:
    lock = (DOCKER / "torch-cpu.lock").read_text()
    assert pinned("torch-cpu") == {
        "torch": install.TORCH_CPU.partition("==")[2],
        "torchvision": install.TORCHVISION.partition("==")[2] + "+cpu",
    }
    assert f"--index-url {install.TORCH_CPU_INDEX}\n" in lock
    assert set((DOCKER / "not-from-pypi.txt").read_text().split()) == {*TORCH, *install.CUDA_ONLY}


def test_dev_contains_the_other_extras() -> None:
    dev = map(Requirement, PROJECT["optional-dependencies"]["dev"])
    [ours] = [requirement for requirement in dev if requirement.name == "triptych"]
    assert {*install.EXTRAS} - {"dev"} <= ours.extras
