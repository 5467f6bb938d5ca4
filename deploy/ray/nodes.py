"""The nodes of a plan: from the command line, from a YAML file or from a running cluster."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

# A label of a Ray node, or a custom resource, with the GiB of each of its GPUs. Ray itself does not know it.
GPU_MEMORY = "gpu_memory_gib"
STANDARD_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")


class NodesError(ValueError):
    """The nodes are not valid; the text has one line for each fault."""


class Node(BaseModel):
    """`count` nodes of one kind. `gpu_memory`, of each GPU, and `memory` are in GiB; None is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: int = Field(1, ge=1)
    cpus: float = Field(ge=0)
    gpus: int = Field(0, ge=0)
    gpu_memory: float | None = Field(None, gt=0)
    memory: float | None = Field(None, gt=0)
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}


def parse_nodes(words: list[str]) -> list[Node]:
    """Nodes from words such as `2xcpus=16,gpus=1,gpu_memory=80,memory=128,label:zone=a,resource:fast=1`.

    One word may also be the path of a YAML file with a list of nodes. Raises `NodesError`.
    """
    if len(words) == 1 and words[0].endswith((".yaml", ".yml")):
        entries = _read(Path(words[0]))
    else:
        entries = [_parse(word) for word in words]
    nodes = []
    for number, entry in enumerate(entries, 1):
        named = {"name": f"node-{number}", **entry} if isinstance(entry, dict) else entry
        try:
            nodes.append(Node.model_validate(named))
        except ValidationError as error:
            lines = [
                f"node {number}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors()
            ]
            raise NodesError("\n".join([*lines, f"The fields are {', '.join(Node.model_fields)}"])) from None
    return nodes


def nodes_of_cluster(rows: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The living nodes in the result of `ray.nodes()`, with all their resources, used or not."""
    return [_node(row["Resources"], row) for row in rows if row["Alive"]]


def _node(resources: Mapping[str, float], row: Mapping[str, Any]) -> Node:
    labels = row["Labels"]
    memory = resources.get("memory")
    gpu_memory = labels.get(GPU_MEMORY, resources.get(GPU_MEMORY))
    try:
        known = float(gpu_memory) if gpu_memory else None
    except ValueError:
        known = None
    return Node(
        name=row["NodeManagerAddress"],
        cpus=resources.get("CPU", 0.0),
        gpus=int(resources.get("GPU", 0)),
        gpu_memory=known,
        memory=None if memory is None else memory / 2**30,
        resources={name: amount for name, amount in resources.items() if name not in STANDARD_RESOURCES},
        labels=labels,
    )


def _read(path: Path) -> list[Any]:
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise NodesError(f"{path}: {error}") from None
    if not isinstance(entries, list):
        raise NodesError(f"{path} has to hold a list of nodes, such as - {{count: 2, cpus: 16, gpus: 1}}")
    return entries


def _parse(word: str) -> dict[str, Any]:
    """The fields of one node of the command line."""
    count, rest = re.fullmatch(r"(?:(\d+)x)?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    entry: dict[str, Any] = {"count": count or 1, "resources": {}, "labels": {}}
    for part in rest.split(","):
        key, _, value = part.partition("=")
        kind, _, name = key.partition(":")
        if kind in ("label", "resource"):
            entry[f"{kind}s"][name] = value
        else:
            entry[key] = value
    return entry
