"""The `http_sd` document that lists the workers (pure)."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import Pool

HIGHEST_PORT = 65_535


def _reachable(target: str) -> str:
    try:
        httpx.URL(f"http://{target}")
    except httpx.InvalidURL as error:
        raise ValueError(f"{target} is not an address: {error}") from None
    if not 0 < int(target.rpartition(":")[2]) <= HIGHEST_PORT:
        raise ValueError(f"{target}: the port must be 1 to {HIGHEST_PORT}")
    return target


Target = Annotated[str, Field(pattern=r"^[^/?#@\s]+:\d{1,5}$"), AfterValidator(_reachable)]


class Labels(BaseModel):
    """The labels of a target group; unknown labels are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Pool
    # Two versions in one pool declare an upgrade: it may serve two vector spaces.
    version: str | None = None
    min_replicas: Annotated[str, Field(pattern=r"^\d+$")] | None = None
    # Further replicas are those that the SRV records of this name list.
    srv: Annotated[str, Field(pattern=r"^[\w-]+(\.[\w-]+)+\.?$")] | None = None


class TargetGroup(BaseModel):
    """Replicas of one pool, in the form of Prometheus' `http_sd`; no targets if it has none now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[Target, ...]
    labels: Labels


_EXAMPLE = '[{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]'


def _some_worker(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    if any(group.labels.srv for group in groups):
        raise ValueError("the label srv is for a document that ROUTER_DISCOVERY names")
    if not any(group.targets for group in groups):
        raise ValueError(f"name at least one worker, such as {_EXAMPLE}")
    return groups


def _distinct(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    if not groups:
        raise ValueError(f"name at least one worker, such as {_EXAMPLE}, or a pool without any")
    counts = Counter(name for group in groups for name in (*group.targets, group.labels.srv) if name)
    if twice := [target for target, count in counts.items() if count > 1]:
        raise ValueError(f"an address may be listed once, for one pool; listed twice: {', '.join(twice)}")
    return groups


# Workers in the settings cannot change later, so there must be one.
TargetGroups = Annotated[tuple[TargetGroup, ...], AfterValidator(_some_worker), AfterValidator(_distinct)]
_DOCUMENT: TypeAdapter[tuple[TargetGroup, ...]] = TypeAdapter(
    Annotated[tuple[TargetGroup, ...], AfterValidator(_distinct)]
)


class DocumentError(ValueError):
    """The document is invalid; the message says where."""


def read_document(data: bytes) -> tuple[TargetGroup, ...]:
    """The groups in `data`. Raises `DocumentError` if any part is invalid."""
    try:
        return _DOCUMENT.validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"{part} -> " for part in fault["loc"])
        raise DocumentError(where + fault["msg"].removeprefix("Value error, ")) from None


def document_of(workers: Iterable[tuple[PoolName, str | None, str]]) -> list[dict[str, Any]]:
    """The document that lists workers (pool, version, address), with a group per pool and version.

    The groups are in the order of their first workers.
    """
    groups: dict[tuple[PoolName, str], list[str]] = {}
    for pool, version, address in workers:
        groups.setdefault((pool, version or ""), []).append(address)
    return [
        {"targets": targets, "labels": {"task": pool} | ({"version": version} if version else {})}
        for (pool, version), targets in groups.items()
    ]


def is_url(location: str) -> bool:
    """Whether `location` is an http(s) URL, otherwise a file."""
    return location.lower().startswith(("http://", "https://"))
