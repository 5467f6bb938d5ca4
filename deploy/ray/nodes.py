"""The nodes of a plan, from the command line or from a running cluster."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triptych.deploy.ray.config import ConfigError, faults_of

# A label of a Ray node with the GiB of each of its GPUs. Ray itself does not know it.
GPU_MEMORY = "gpu_memory_gib"


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


def parse_nodes(words: Iterable[str]) -> list[Node]:
    """Nodes from words such as `2xcpus=16,gpus=1,gpu_memory=80,memory=128,label:zone=a,resource:fast=1`.

    Raises `ConfigError`.
    """
    return [_node(word, {"name": f"node-{number}", **_parse(word)}) for number, word in enumerate(words, 1)]


def nodes_of_cluster(rows: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The living nodes in the result of `ray.nodes()`, with all their resources, used or not.

    Raises `ConfigError`.
    """
    nodes = []
    for row in (row for row in rows if row["Alive"]):
        name, resources, labels = row["NodeManagerAddress"], row["Resources"], row["Labels"]
        fields = {
            "name": name,
            "cpus": resources.get("CPU", 0),
            "gpus": resources.get("GPU", 0),
            "gpu_memory": labels.get(GPU_MEMORY),
            "memory": resources["memory"] / 2**30 if "memory" in resources else None,
            "resources": resources,
            "labels": labels,
        }
        nodes.append(_node(name, fields))
    return nodes


def _node(source: str, fields: Mapping[str, Any]) -> Node:
    try:
        return Node.model_validate(fields)
    except ValidationError as error:
        faults = [f"{source}: {fault}" for fault in faults_of(error)]
        raise ConfigError("\n".join([*faults, f"The fields are {', '.join(Node.model_fields)}"])) from None


def _parse(word: str) -> dict[str, Any]:
    """The fields of one node of the command line."""
    entry: dict[str, Any] = {"resources": {}, "labels": {}}
    if match := re.match(r"(\d+)x", word):
        entry["count"], word = match[1], word[match.end() :]
    for part in word.split(","):
        key, _, value = part.partition("=")
        kind, _, name = key.partition(":")
        if kind in ("label", "resource"):
            entry[f"{kind}s"][name] = value
        else:
            entry[key] = value
    return entry
