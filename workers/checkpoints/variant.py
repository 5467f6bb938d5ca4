"""Identifies and checks the checkpoint in a folder. Does not import torch or vllm."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from triptych.workers.checkpoints import layout, shared_variant
from triptych.workers.checkpoints.folders import is_partial, load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.layouts import KNOWN, LAYOUTS, MERGED, recognize
from triptych.workers.checkpoints.layouts.sizes import Config
from triptych.workers.checkpoints.layouts.unmerged import Kind, text_config
from triptych.workers.checkpoints.shards import DTYPE_NAMES, Tensor, has_weights, read_tensors
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL, Family

FORMAT = 1
"""Version of `variant.json` and of the layout of a variant."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`variant.json`. `digest` is of the merged weights, `source_digest` of the source (`space.py`).

    `source` is the source's folder or Hugging Face id, `revision` its commit if known.
    """

    format: int
    task: PoolName
    source: str
    revision: str | None
    source_digest: str
    digest: str
    r: int
    alpha: float
    dtype: str
    projector: bool
    dimensions: int
    multivector_dimensions: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A folder that can be served.

    `digest` is None without a `variant.json`, as in the official `jina-embeddings-v4-vllm-*`, and so is
    `task` (the pool) unless the model has only one; `multivector_dimensions` is None without a projector.
    `positions` is one more than the longest input in tokens, None if its config does not say. `adapters` are
    those that its engine has to hold, of rank `rank`; empty if one is merged.
    """

    path: Path
    family: Family
    task: PoolName | None
    source: str
    revision: str | None
    digest: str | None
    dtype: str
    dimensions: int
    multivector_dimensions: int | None
    positions: int | None
    adapters: tuple[str, ...] = ()
    rank: int = 0


class Identity(NamedTuple):
    """What a folder seems to be by its small files, and why it cannot be served ("" if it seems it can).

    `family` is None if it is not known, and for a variant, whose record names it.
    """

    kind: Kind
    why_not: str = ""
    family: Family | None = None


def identify(path: Path) -> Identity:
    """Identify a folder. Does not raise for a damaged one."""
    if not path.is_dir():
        why = "is not a folder; use the folder of a variant, as `merge` writes it"
        return Identity("not a checkpoint", why)
    if is_partial(path):
        return Identity("incomplete", "is left from an unfinished merge; merge again")
    if (path / layout.VARIANT).exists():
        return Identity("variant")
    found = None
    try:
        names = {tensor.name for tensor in read_tensors(path)} if has_weights(path) else set()
        if names or (path / layout.CONFIG).exists():
            found = recognize(path, load_json(path / layout.CONFIG), names)
    except CheckpointError as error:
        return Identity("incomplete", f"is incomplete: {error}; fetch or merge it again")
    if found is None:
        known = ", ".join(family.name for family in KNOWN)
        return Identity("not a checkpoint", f"is not a checkpoint of {known}")
    family, kind, why_not = found
    if not names:
        return Identity("incomplete", "has no weights; fetch or merge it again", family)
    if kind == "upstream":
        merge = f"triptych merge {path} OUT"
        why_not = f"is not merged; merge it first: `{merge}`, then serve one of the folders in OUT"
    return Identity(kind, why_not, family)


def read_variant(path: Path) -> Variant:
    """Check a merged checkpoint by its small files and the headers of its shards.

    Does not read the weights; `triptych verify --full` does. Raises `CheckpointError`
    for a folder that must not be served.
    """
    kind, why_not, family = identify(path)
    if why_not:
        raise CheckpointError(f"{path} {why_not}")
    record = read_record(path) if kind == "variant" else None
    family = BY_POOL[record.task] if record else family
    assert family is not None
    config = load_json(path / layout.CONFIG)
    tensors = {tensor.name: tensor for tensor in read_tensors(path)}
    for name in (layout.TOKENIZER, *([layout.PREPROCESSOR] if family.images else [])):
        load_json(path / name)
    dimensions = text_config(config).get("hidden_size")
    embedding = embedding_of(path, family, tensors)
    if embedding.shape[-1:] != (dimensions,):
        raise CheckpointError(
            f"{path / layout.CONFIG} says hidden_size {dimensions}, "
            f"but {embedding.name} has the shape {list(embedding.shape)}"
        )
    adapters = family.adapters if record and record.task == family.shared_pool else ()
    if record:
        _check_record(path, record, config, tensors, adapters)
    rank = shared_variant.check_adapters(path, tensors, adapters) if adapters else 0
    only = family.pools[0] if len(family.pools) == 1 else None
    return Variant(
        path=path,
        family=family,
        task=record.task if record else only,
        source=record.source if record else str(path),
        revision=record.revision if record else snapshot_revision(path),
        digest=record.digest if record else None,
        dtype=DTYPE_NAMES.get(embedding.dtype, embedding.dtype),
        dimensions=embedding.shape[-1],
        multivector_dimensions=(record.multivector_dimensions or None) if record else None,
        positions=text_config(config).get("max_position_embeddings"),
        adapters=adapters,
        rank=rank,
    )


def embedding_of(folder: Path, family: Family, weights: Mapping[str, Tensor]) -> Tensor:
    """The token embeddings among the weights of a folder. Raises `CheckpointError` without them."""
    end = LAYOUTS[family.layout].EMBEDDING
    for name, tensor in weights.items():
        if name.endswith(end):
            return tensor
    raise CheckpointError(f"{folder} has no {end} among its weights; fetch or merge it again")


def read_record(path: Path) -> Record:
    """Read `variant.json`. Raises `CheckpointError` if it does not have this format."""
    file = path / layout.VARIANT
    values = load_json(file)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{file} has format {values.get('format')} instead of {FORMAT}; merge again")
    try:
        record = msgspec.convert(values, Record)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file} is invalid: {error}; merge again") from error
    if record.task not in {pool for family in MERGED for pool in family.worker_pools}:
        raise CheckpointError(f"{file} names {record.task}, no pool of a merged variant; merge again")
    return record


def snapshot_revision(path: Path) -> str | None:
    """The commit of a folder in the Hugging Face cache (`.../snapshots/<commit>`), or None."""
    folder = path.resolve()
    known = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if known else None


def _check_record(
    path: Path, record: Record, config: Config, tensors: Mapping[str, Tensor], adapters: Sequence[str]
) -> None:
    """Check `variant.json` against config and weights. Raises `CheckpointError`."""
    family, file = BY_POOL[record.task], path / layout.VARIANT
    embedding = embedding_of(path, family, tensors)
    if (named := config.get("architectures")) != [family.architecture]:
        raise CheckpointError(
            f"{path / layout.CONFIG} names the architectures {named} instead of {family.architecture}; "
            "merge again"
        )
    hidden, projected = record.dimensions, record.multivector_dimensions
    expected: dict[str, tuple[int, ...]] = {embedding.name: (embedding.shape[0], hidden)}
    if family.multivector:
        projectors = [shared_variant.projector_of(adapter) for adapter in adapters] or [layout.PROJECTOR]
        for projector in projectors:
            expected |= {f"{projector}.weight": (projected, hidden), f"{projector}.bias": (projected,)}
    for name, shape in expected.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            raise CheckpointError(
                f"{file} says that {name} has the shape {shape}, it is {found}; merge again"
            )
    if DTYPE_NAMES.get(embedding.dtype) != record.dtype:
        raise CheckpointError(
            f"{file} says {record.dtype}, but the weights are {embedding.dtype}; merge again"
        )
