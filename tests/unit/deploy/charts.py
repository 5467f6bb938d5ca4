"""The Helm chart as the tests render it."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from triptych.deploy.kubernetes.helm import template


@cache
def rendered(*arguments: str | Path) -> list[dict[str, Any]]:
    """The objects of the chart. Tests share them."""
    return [one for one in yaml.safe_load_all(template(*arguments)) if one]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def with_values(path: Path, values: dict[str, Any]) -> list[str | Path]:
    path.write_text(yaml.safe_dump(values))
    return ["--values", path]


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [one["spec"]["template"]["spec"] for one in objects if "template" in one.get("spec", {})]
    return [container for spec in specs for container in spec.get("initContainers", []) + spec["containers"]]
