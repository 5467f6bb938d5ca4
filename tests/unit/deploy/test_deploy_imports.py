"""Imports inside deploy/, and what `make serve` needs."""

import subprocess
import sys

import pytest

from tests.unit.test_import_rules import ROOT, imports_of, inside, modules

FORBIDDEN = {
    "deploy/common": ("deploy.local", "deploy.ray", "ray", "yaml"),
    "deploy/local": ("deploy.ray", "ray", "yaml"),
    "deploy/ray": ("deploy.local",),
}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_to_common_only(folder: str) -> None:
    wrong = {
        f"{path.name} imports {name}"
        for path in modules(folder)
        for name in imports_of(path)
        if any(inside(name, module) for module in FORBIDDEN[folder])
    }
    assert modules(folder)
    assert wrong == set()


def test_local_deployment_runs_without_yaml_and_ray() -> None:
    program = "import sys; sys.modules['yaml'] = sys.modules['ray'] = None; import triptych.deploy.local.cli"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
