"""Identifies and checks the checkpoint in a folder. Does not import torch or vllm."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.shards import DTYPE_NAMES, Tensor, has_weights, read_tensors
from triptych.workers.shared.contract import PoolName

FORMAT = 1
"""Version of `variant.json` and of the layout of a variant."""

_EMBEDDING = "embed_tokens.weight"

Kind = Literal["variant", "official", "upstream", "incomplete", "not a checkpoint"]


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


def identify(path: Path) -> tuple[Kind, str]:
    """What a folder seems to be by its small files, and why it cannot be served ("" if it seems it can)."""
    if not path.is_dir():
        return "not a checkpoint", "is not a folder; use the folder of a variant, as `merge` writes it"
    if layout.is_partial(path.resolve().name):
        return "incomplete", "is left from an unfinished merge; merge again"
    if (path / layout.VARIANT).exists():
        return "variant", ""
    other = "is not a checkpoint of jina-embeddings-v4; use the folder of a variant, as `merge` writes it"
    if not (path / layout.CONFIG).exists() and not has_weights(path):
        return "not a checkpoint", other
    try:
        config = load_json(path / layout.CONFIG)
        adapters = (path / layout.ADAPTER_WEIGHTS).exists()
        if not adapters and config.get("model_type") != layout.MODEL_TYPE:
            return "not a checkpoint", other
        if not has_weights(path):
            return "incomplete", "has no weights; fetch or merge it again"
        if adapters:
            merge = f"triptych merge {path} OUT"
            return "upstream", f"is not merged; merge it first: `{merge}`, then serve OUT/<task>"
        names = {tensor.name for tensor in read_tensors(path)}
    except CheckpointError as error:
        return "incomplete", f"is incomplete: {error}; fetch or merge it again"
    if layout.ARCHITECTURE in config.get("architectures", []):
        return "incomplete", f"has no {layout.VARIANT}; merge again"
    # The bare base would give wrong vectors.
    if f"{layout.PROJECTOR}.weight" in names:
        return "incomplete", f"is the base without {layout.ADAPTER_WEIGHTS}; fetch it again and merge it"
    return "official", ""


def read_variant(path: Path) -> Variant:
    """Check a merged checkpoint by its small files and the headers of its shards.

    Does not read the weights; `triptych verify --full` does. Raises `CheckpointError`
    for a folder that must not be served.
    """
    kind, why_not = identify(path)
    if why_not:
        raise CheckpointError(f"{path} {why_not}")
    config = load_json(path / layout.CONFIG)
    tensors = {tensor.name: tensor for tensor in read_tensors(path)}
    for name in (layout.TOKENIZER, layout.PREPROCESSOR):
        load_json(path / name)
    dimensions = text_config(config).get("hidden_size")
    embedding = next((tensor for name, tensor in tensors.items() if name.endswith(_EMBEDDING)), None)
    if embedding is None:
        raise CheckpointError(f"{path} has no {_EMBEDDING} among its weights; fetch or merge it again")
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
