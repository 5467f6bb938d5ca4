"""The private interfaces of Ray exist in the installed version."""

from pathlib import Path

import pytest
import ray

from deploy.ray import ray_private


def test_no_private_interface_is_missing() -> None:
    assert ray_private.missing() == []


def test_a_missing_interface_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_private, "SELECTOR", "ray._raylet:gone")
    monkeypatch.setattr(ray_private, "BLOCKING", ("ray.serve:delete", "_gone"))
    assert ray_private.missing() == ["ray._raylet:gone", "ray.serve:delete(_gone=)"]


def test_the_installed_ray_is_the_tested_one() -> None:
    assert ray.__version__.startswith("2.60.")
    assert "Tested with Ray 2.60" in (ray_private.__doc__ or "")


def test_only_one_file_uses_private_interfaces() -> None:
    folder = Path(ray_private.__file__).parent
    marks = ("ray._", "_private", "_internal", "_get_global", "_blocking", "_node_ip_address=")
    found = {
        path.name
        for path in folder.glob("*.py")
        for line in path.read_text().replace("ray_private", "").splitlines()
        if any(mark in line for mark in marks)
    }
    assert found == {"ray_private.py"}


@pytest.mark.parametrize(
    ("selector", "zones"),
    [("a", "a"), ("!a", "bc "), ("in(a,b)", "ab"), ("!in(a,b)", "c "), ("in(a, b)", "a")],
)
def test_labels_match_as_ray_reads_them(selector: str, zones: str) -> None:
    labels = {zone: {"zone": zone} if zone != " " else {} for zone in "abc "}
    assert (
        "".join(zone for zone in labels if ray_private.labels_match(labels[zone], {"zone": selector}))
        == zones
    )
