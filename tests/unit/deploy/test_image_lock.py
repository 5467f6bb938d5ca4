"""The lock of the image against the dependencies that it locks."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "deploy" / "kubernetes" / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", LOCK, re.MULTILINE))


def test_lock_satisfies_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["ray"], *extras["workers"]]
    for requirement in map(Requirement, wanted):
        if requirement.name != "triptych":
            version = PINNED[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(version), requirement


def test_every_pin_has_a_hash() -> None:
    pins = re.findall(r"^[a-z0-9._-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+", LOCK, re.MULTILINE)
    assert len(pins) == len(PINNED) > 100
