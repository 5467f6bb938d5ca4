"""Nodes that a deployment may go on: written on a command line or in a file, or as Ray lists them (pure)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# The label, or the custom resource, of a Ray node that says what Ray does not: the GiB of each of its GPUs.
GPU_MEMORY = "gpu_memory_gib"
PARTS = "name, count, cpus, gpus, gpu_memory, memory, label:KEY and resource:NAME"
# What Ray counts itself, and what nobody can ask for.
_NOT_CUSTOM = ("CPU", "GPU", "memory", "object_store_memory")


class NodesError(ValueError):
    """Nodes that are not written as they should be; one line for each fault, with the part."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine, as Ray counts it: cores, whole GPUs, GiB of each GPU's and of main memory.

    None is unknown. `resources` are Ray's custom ones.
    """

    name: str
    cpus: float
    gpus: int = 0
    gpu_memory_gib: float | None = None
    memory_gib: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class _Kind(BaseModel):
    """One entry: so many nodes of a kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(1, ge=1)
    name: str | None = None
    cpus: float = Field(ge=0)
    gpus: int = Field(0, ge=0)
    gpu_memory: float | None = Field(None, gt=0)
    memory: float | None = Field(None, gt=0)
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_parts(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f"{data!r} is no node; write one as {{cpus: 16, gpus: 1}}")
        if strange := sorted(str(name) for name in data if name not in cls.model_fields):
            raise ValueError(f"no such part: {', '.join(strange)}; there are {PARTS}")
        if "cpus" not in data:
            raise ValueError("cpus is missing: say how many cores a node has, such as cpus=16")
        return data

    @model_validator(mode="after")
    def _memory_of_gpus(self) -> Self:
        if self.gpu_memory is not None and not self.gpus:
            raise ValueError("gpu_memory is the GiB of each GPU, but there are no gpus; write gpus=1 too")
        return self


def parse_nodes(text: str) -> tuple[Node, ...]:
    """The nodes that `text` spells. Raises `NodesError`.

    That is words such as `2xcpus=16,gpus=1,gpu_memory=80,memory=128,label:zone=a,resource:fast=1`, memory in
    GiB; or the path of a YAML file with a list of {count, name, cpus, gpus, gpu_memory, memory, resources,
    labels}.
    """
    words = text.split()
    if len(words) == 1 and words[0].endswith((".yaml", ".yml")):
        entries = _entries_of(Path(words[0]))
    else:
        entries = [(word, _entry(word)) for word in words]
    if not entries:
        raise NodesError("no nodes; write for example 2xcpus=16,gpus=1,gpu_memory=80")
    return _nodes([_kind(source, entry) for source, entry in entries])


def nodes_of_cluster(rows: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """The living nodes among what `ray.nodes()` returns, with all they have, whoever uses it now.

    Ray does not know a GPU's memory: it is taken from the label or the resource `gpu_memory_gib`.
    """
    alive = [row for row in rows if row["Alive"]]
    addresses = Counter(row["NodeManagerAddress"] for row in alive)
    return tuple(_node_of(row, addresses[row["NodeManagerAddress"]] > 1) for row in alive)


def _node_of(row: Mapping[str, Any], shared_address: bool) -> Node:
    resources, labels = row["Resources"], row["Labels"]
    address = row["NodeManagerAddress"]
    memory = resources.get("memory")
    return Node(
        name=f"{address} ({row['NodeID'][:8]})" if shared_address else address,
        cpus=resources.get("CPU", 0.0),
        gpus=int(resources.get("GPU", 0)),
        gpu_memory_gib=_positive(labels.get(GPU_MEMORY, resources.get(GPU_MEMORY))),
        memory_gib=None if memory is None else memory / 2**30,
        resources={name: amount for name, amount in resources.items() if name not in _NOT_CUSTOM},
        labels=dict(labels),
    )


def _positive(value: Any) -> float | None:
    """A number of GiB, or None where it is none: a label can hold any text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def _entries_of(path: Path) -> list[tuple[str, Any]]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise NodesError(f"{path}: {error}") from None
    if not isinstance(data, list):
        raise NodesError(f"{path} has to hold a list of nodes, such as - {{count: 2, cpus: 16, gpus: 1}}")
    return [(f"{path}: entry {number}", entry) for number, entry in enumerate(data, 1)]


def _entry(word: str) -> dict[str, Any]:
    """A word of the short form as what a file would hold."""
    match = re.fullmatch(r"(?:(\d+)x)?(.*)", word)
    count, rest = match.groups() if match else (None, word)
    entry: dict[str, Any] = {"resources": {}, "labels": {}} | ({"count": count} if count else {})
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise NodesError(f"{word}: {part or 'an empty part'} is no part; write cpus=16 or label:zone=a")
        kind, colon, name = key.partition(":")
        where, key = (entry[f"{kind}s"], name) if colon and kind in ("label", "resource") else (entry, key)
        if key in where and where[key] != {}:
            raise NodesError(f"{word}: {part}: given twice")
        where[key] = value
    return entry


def _kind(source: str, entry: Any) -> _Kind:
    try:
        return _Kind.model_validate(entry)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            where = "".join(f"{part}: " for part in fault["loc"])
            lines.append(f"{source}: {where}{fault['msg'].removeprefix('Value error, ')}")
        raise NodesError("\n".join(lines)) from None


def _nodes(kinds: list[_Kind]) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for kind in kinds:
        for number in range(1, kind.count + 1):
            own = kind.name and (kind.name if kind.count == 1 else f"{kind.name}-{number}")
            nodes.append(
                Node(
                    name=own or f"node-{len(nodes) + 1}",
                    cpus=kind.cpus,
                    gpus=kind.gpus,
                    gpu_memory_gib=kind.gpu_memory,
                    memory_gib=kind.memory,
                    resources=dict(kind.resources),
                    labels=dict(kind.labels),
                )
            )
    if twice := [name for name, times in Counter(node.name for node in nodes).items() if times > 1]:
        raise NodesError(f"several nodes are called {', '.join(twice)}; give each a name of its own")
    return tuple(nodes)
