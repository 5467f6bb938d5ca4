"""Which workers there are: the `http_sd` document, what makes one valid, and how two differ (pure)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workers.shared.contract import PoolName

HIGHEST_PORT = 65_535


def _reachable(target: str) -> str:
    try:
        httpx.URL(f"http://{target}")
    except httpx.InvalidURL as error:
        raise ValueError(f"{target} is no address: {error}") from None
    if not 0 < int(target.rpartition(":")[2]) <= HIGHEST_PORT:
        raise ValueError(f"{target} names no port that there can be")
    return target


Target = Annotated[str, Field(pattern=r"^[^/?#@\s]+:\d{1,5}$"), AfterValidator(_reachable)]


class Labels(BaseModel):
    """The labels of a target group; those that other readers use are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: PoolName
    # Two versions of one pool declare an upgrade, in which it may serve two vector spaces.
    version: str | None = None
    min_replicas: Annotated[str, Field(pattern=r"^\d+$")] | None = None


class TargetGroup(BaseModel):
    """Replicas of one pool, in the form of Prometheus' `http_sd`; none where the pool has none now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[Target, ...]
    labels: Labels


_EXAMPLE = '[{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]'


def _some_worker(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    if not any(group.targets for group in groups):
        raise ValueError(f"name at least one worker, such as {_EXAMPLE}")
    return groups


def _some_pool(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    if not groups:
        raise ValueError(f"name at least one worker, such as {_EXAMPLE}, or a pool without any")
    return groups


def _distinct(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    counts = Counter(target for group in groups for target in group.targets)
    if twice := [target for target, count in counts.items() if count > 1]:
        raise ValueError(f"an address can serve one pool only, once; listed twice: {', '.join(twice)}")
    return groups


# Where nothing can bring a replica later, there has to be one.
TargetGroups = Annotated[tuple[TargetGroup, ...], AfterValidator(_some_worker), AfterValidator(_distinct)]
_DOCUMENT: TypeAdapter[tuple[TargetGroup, ...]] = TypeAdapter(
    Annotated[tuple[TargetGroup, ...], AfterValidator(_some_pool), AfterValidator(_distinct)]
)


class DocumentError(ValueError):
    """A document that names nothing which can be meant; says what is wrong with it."""


def read_document(data: bytes) -> tuple[TargetGroup, ...]:
    """The groups in `data`. Raises `DocumentError` when any of it is wrong, so that none of it is used."""
    try:
        return _DOCUMENT.validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"{part} -> " for part in fault["loc"])
        raise DocumentError(where + fault["msg"].removeprefix("Value error, ")) from None


def document_of(workers: Iterable[tuple[PoolName, str | None, str]]) -> list[dict[str, Any]]:
    """The document that names workers, each by pool, version and address; one group for a pool's version."""
    groups: dict[tuple[PoolName, str], list[str]] = {}
    for pool, version, address in workers:
        groups.setdefault((pool, version or ""), []).append(address)
    return [
        {"targets": targets, "labels": {"task": pool} | ({"version": version} if version else {})}
        for (pool, version), targets in sorted(groups.items())
    ]


def is_url(location: str) -> bool:
    """Whether a document is served at `location`, which else is a file."""
    return location.lower().startswith(("http://", "https://"))


class Change(NamedTuple):
    """From one set of workers to another: what goes and what comes, each a pool and an address."""

    removed: tuple[tuple[PoolName, str], ...]
    added: tuple[tuple[PoolName, str], ...]


def change(now: Mapping[PoolName, Iterable[str]], wanted: Iterable[TargetGroup]) -> Change:
    """What has to be done so that the pools of `now`, each with its addresses, become `wanted`.

    An address that moves to another pool is removed from the one and added to the other.
    """
    before = [(pool, address) for pool, addresses in now.items() for address in addresses]
    after = [(group.labels.task, address) for group in wanted for address in group.targets]
    stay = set(before) & set(after)
    return Change(
        tuple(place for place in before if place not in stay),
        tuple(place for place in after if place not in stay),
    )
