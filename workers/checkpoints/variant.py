"""Identifies and checks the checkpoint in a folder. Does not import torch or vllm."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from workers.checkpoints import layout
from workers.checkpoints.folders import load_json
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import DTYPE_NAMES, Tensor, has_weights, read_shards, read_tensors
from workers.shared.contract import PoolName

FORMAT = 1
"""Version of `variant.json` and of the layout of a variant."""

Kind = Literal["variant", "official", "upstream", "incomplete", "not a checkpoint"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`variant.json`. `digest` is of the merged weights, `source_digest` of the source (`digest.py`).

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

    `task` and `digest` are None without a `variant.json`, as in the official `jina-embeddings-v4-vllm-*`;
    `multivector_dimensions` is None without a projector. `positions` is the model's maximum number of tokens,
    None if its config does not say.
    """

    path: Path
    task: PoolName | None
    source: str
    revision: str | None
    digest: str | None
    dtype: str
    dimensions: int
    multivector_dimensions: int | None
    positions: int | None


def kind_of(path: Path) -> Kind:
    """What a folder seems to be, by the names of its files. `read_variant` checks it."""
    if not path.is_dir():
        return "not a checkpoint"
    if layout.is_partial(path.resolve().name):
        return "incomplete"
    if (path / layout.VARIANT).exists():
        return "variant"
    if not (path / layout.CONFIG).exists():
        return "incomplete" if has_weights(path) else "not a checkpoint"
    if (path / layout.ADAPTER_WEIGHTS).exists():
        return "upstream" if has_weights(path) else "incomplete"
    try:
        config = load_json(path / layout.CONFIG)
        if config.get("model_type") != layout.MODEL_TYPE:
            return "not a checkpoint"
        if not has_weights(path):
            return "incomplete"
        named = {tensor.name for tensor in read_tensors(path)}
    except CheckpointError:
        return "incomplete"
    # With a projector but without adapters it is the bare base, which would give wrong vectors.
    return "incomplete" if f"{layout.PROJECTOR}.weight" in named else "official"


def read_variant(path: Path) -> Variant:
    """Check a merged checkpoint by its small files and the headers of its shards.

    Does not read the weights; `python -m workers.checkpoints verify --full` does. Raises `CheckpointError`
    for a folder that must not be served.
    """
    kind = kind_of(path)
    if kind not in ("variant", "official"):
        raise CheckpointError(f"{path} {_why_not(path, kind)}")
    config = load_json(path / layout.CONFIG)
    tensors = {tensor.name: tensor for tensor in read_tensors(path)}
    for name in (layout.TOKENIZER, layout.PREPROCESSOR):
        load_json(path / name)
    dimensions = text_config(config).get("hidden_size")
    embedding = _embedding(path, tensors)
    if embedding.shape[-1:] != (dimensions,):
        raise CheckpointError(
            f"{path / layout.CONFIG} says hidden_size {dimensions}, "
            f"but {embedding.name} has the shape {list(embedding.shape)}"
        )
    record = _checked_record(path, config, tensors, embedding) if kind == "variant" else None
    return Variant(
        path=path,
        task=record.task if record else None,
        source=record.source if record else str(path),
        revision=record.revision if record else snapshot_revision(path),
        digest=record.digest if record else None,
        dtype=DTYPE_NAMES.get(embedding.dtype, embedding.dtype),
        dimensions=embedding.shape[-1],
        multivector_dimensions=record.multivector_dimensions if record else None,
        positions=text_config(config).get("max_position_embeddings"),
    )


def read_record(path: Path) -> Record:
    """Read `variant.json`. Raises `CheckpointError` if it does not have this format."""
    file = path / layout.VARIANT
    values = load_json(file)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{file} has format {values.get('format')} instead of {FORMAT}; merge again")
    try:
        return msgspec.convert(values, Record)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file} is invalid: {error}; merge again") from error


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the text model: at the top level in older configs, under `text_config` in newer ones."""
    return {**config, **(config.get("text_config") or {})}


def snapshot_revision(path: Path) -> str | None:
    """The commit of a folder in the Hugging Face cache (`.../snapshots/<commit>`), or None."""
    folder = path.resolve()
    known = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if known else None


def _checked_record(
    path: Path, config: dict[str, Any], tensors: dict[str, Tensor], embedding: Tensor
) -> Record:
    """Read `variant.json`, and check it against config and weights. Raises `CheckpointError`."""
    record = read_record(path)
    if config.get("architectures") != [layout.ARCHITECTURE]:
        raise CheckpointError(
            f"{path / layout.CONFIG} names the architectures {config.get('architectures')} "
            f"instead of {layout.ARCHITECTURE}; merge again"
        )
    width = record.multivector_dimensions
    expected = {
        f"{layout.PROJECTOR}.weight": (width, record.dimensions),
        f"{layout.PROJECTOR}.bias": (width,),
        embedding.name: (embedding.shape[0], record.dimensions),
    }
    for name, shape in expected.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            raise CheckpointError(
                f"{path / layout.VARIANT} says that {name} has the shape {shape}, it is {found}; merge again"
            )
    if DTYPE_NAMES.get(embedding.dtype) != record.dtype:
        raise CheckpointError(
            f"{path / layout.VARIANT} says {record.dtype}, but the weights are {embedding.dtype}; merge again"
        )
    return record


def _embedding(path: Path, tensors: dict[str, Tensor]) -> Tensor:
    for name, tensor in tensors.items():
        if name.endswith("embed_tokens.weight"):
            return tensor
    raise CheckpointError(f"{path} has no token embeddings among its weights; fetch or merge it again")


def _why_not(path: Path, kind: Kind) -> str:
    """Why a folder that is not merged cannot be served. Raises `CheckpointError` for a damaged file."""
    if kind == "not a checkpoint":
        what = "is not a checkpoint of jina-embeddings-v4" if path.is_dir() else "is not a folder"
        return f"{what}; use the folder of a variant, as `merge` writes it"
    if kind == "upstream":
        return (
            "holds a base and adapters that are not merged; merge them first: "
            f"`python -m workers.checkpoints merge {path} OUT`, then serve OUT/<task>"
        )
    if layout.is_partial(path.resolve().name):
        return "is left from an unfinished merge; merge again"
    if not (path / layout.CONFIG).exists():
        return f"is incomplete: it has no {layout.CONFIG}; fetch or merge it again"
    if not has_weights(path):
        return "is incomplete: it has no weights; fetch or merge it again"
    if layout.ARCHITECTURE in load_json(path / layout.CONFIG).get("architectures", []):
        return f"is incomplete: it has no {layout.VARIANT}; merge again"
    read_shards(path)
    return f"is the base without {layout.ADAPTER_WEIGHTS}; fetch it again and merge it"
