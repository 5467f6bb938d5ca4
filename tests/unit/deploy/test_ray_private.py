"""The private interfaces of Ray: the installed version has them, and one file uses them."""

import inspect
from pathlib import Path

import pytest
import ray
from ray import serve
from ray._private import utils

from triptych.deploy.ray import ray_private


def test_private_interfaces_exist() -> None:
    # Importing the file has found the others.
    assert callable(utils.set_sigterm_handler)
    assert "_node_ip_address" in inspect.getsource(ray.init)
    assert "_blocking" in inspect.signature(serve.delete).parameters
    assert "_internal" in inspect.signature(serve.Deployment.options).parameters


def test_only_one_file_uses_private_interfaces() -> None:
    marks = ("ray._", "_private", "_internal", "_get_global", "_blocking", "_node_ip_address=")
    found = {
        path.name
        for path in Path(ray_private.__file__).parent.glob("*.py")
        if any(mark in path.read_text().replace("ray_private", "") for mark in marks)
    }
    assert found == {"ray_private.py"}


@pytest.mark.parametrize(
    ("selector", "zones"),
    [("a", "a"), ("!a", "bc "), ("in(a,b)", "ab"), ("!in(a,b)", "c "), ("in(a, b)", "a")],
)
def test_labels_match_as_ray_reads_them(selector: str, zones: str) -> None:
    labels = {zone: {"zone": zone} if zone != " " else {} for zone in "abc "}
    found = [zone for zone in labels if ray_private.labels_match(labels[zone], {"zone": selector})]
    assert "".join(found) == zones
