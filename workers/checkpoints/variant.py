"""What a worker has to know of a folder before it loads it. Imports neither torch nor vllm."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from workers.checkpoints import layout
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.shards import DTYPE_NAMES, Tensor, has_weights, load_json, read_shards
from workers.shared.contract import PoolName

__all__ = ["FORMAT", "CheckpointError", "Kind", "Record", "Variant", "kind_of", "read_record", "read_variant"]

FORMAT = 1
"""The version of `variant.json` and of what the folder around it holds."""

Kind = Literal["variant", "official", "upstream", "incomplete", "not a checkpoint"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`variant.json`. `digest` is of the weights here (`digest.py`), `source_digest` of what was merged.

    `source` is the folder or the Hugging Face id that was given, `revision` its commit where known.
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

    `task`, `digest`, `r` and `alpha` are None where the folder does not say, as the official
    `jina-embeddings-v4-vllm-*` do not; `multivector_dimensions` is None where there is no projector.
    `positions` is how many tokens the model takes, None where its config does not say.
    """

    path: Path
    task: PoolName | None
    source: str
    revision: str | None
    digest: str | None
    r: int | None
    alpha: float | None
    dtype: str
    dimensions: int
    multivector_dimensions: int | None
    positions: int | None


def kind_of(path: Path) -> Kind:
    """What a folder is meant to be, by the names of its files; `read_variant` says whether it is sound."""
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
        named = {tensor.name for tensors in read_shards(path).values() for tensor in tensors}
    except CheckpointError:
        return "incomplete"
    # A projector without adapters beside it is the bare base, which would serve the wrong vectors.
    return "incomplete" if f"{layout.PROJECTOR}.weight" in named else "official"


def read_variant(path: Path) -> Variant:
    """Check a merged checkpoint, by its small files and its shards' headers, and say what it is.

    The bytes of the weights are not read: `python -m workers.checkpoints verify --full` does that.
    Raises `CheckpointError` for every folder that must not be served.
    """
    kind = kind_of(path)
    if kind == "not a checkpoint":
        what = "is not a checkpoint of jina-embeddings-v4" if path.is_dir() else "is no folder"
        raise CheckpointError(f"{path} {what}; give the folder of a variant, as `merge` writes it")
    if kind == "upstream":
        raise CheckpointError(
            f"{path} holds the base and its adapters apart; merge it first: "
            f"`python -m workers.checkpoints merge {path} OUT`, then serve OUT/<task>"
        )
    if kind == "incomplete" and layout.is_partial(path.resolve().name):
        raise CheckpointError(f"{path} is what an unfinished merge left behind; merge again")
    if kind == "incomplete":
        raise CheckpointError(f"{path} is incomplete: {_what_is_missing(path)}")
    config = load_json(path / layout.CONFIG)
    tensors = {tensor.name: tensor for shard in read_shards(path).values() for tensor in shard}
    for name in (layout.TOKENIZER, layout.PREPROCESSOR):
        load_json(path / name)
    dimensions = text_config(config).get("hidden_size")
    embedding = _embedding(path, tensors)
    if embedding.shape[-1:] != (dimensions,):
        raise CheckpointError(
            f"{path / layout.CONFIG} says hidden_size {dimensions}, "
            f"but {embedding.name} has the shape {list(embedding.shape)}"
        )
    if kind == "variant":
        return _merged(path, config, tensors, embedding)
    return Variant(
        path=path,
        task=None,
        source=str(path),
        revision=snapshot_revision(path),
        digest=None,
        r=None,
        alpha=None,
        dtype=DTYPE_NAMES.get(embedding.dtype, embedding.dtype),
        dimensions=embedding.shape[-1],
        multivector_dimensions=None,
        positions=text_config(config).get("max_position_embeddings"),
    )


def read_record(path: Path) -> Record:
    """A folder's `variant.json`. Raises `CheckpointError` where it is not one of this format."""
    file = path / layout.VARIANT
    values = load_json(file)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{file} is of format {values.get('format')}, this is {FORMAT}; merge again")
    try:
        return msgspec.convert(values, Record)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{file} is not sound: {error}; merge again") from error


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The backbone's settings, which older configs keep at the top and newer ones under `text_config`."""
    return {**config, **(config.get("text_config") or {})}


def snapshot_revision(path: Path) -> str | None:
    """The commit of a folder in the Hugging Face cache (`.../snapshots/<commit>`), else None."""
    folder = path.resolve()
    known = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if known else None


def _merged(path: Path, config: dict[str, Any], tensors: dict[str, Tensor], embedding: Tensor) -> Variant:
    record = read_record(path)
    if config.get("architectures") != [layout.ARCHITECTURE]:
        raise CheckpointError(
            f"{path / layout.CONFIG} names the architectures {config.get('architectures')} "
            f"instead of {layout.ARCHITECTURE}; merge again"
        )
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    said = {
        f"{layout.PROJECTOR}.weight": (record.multivector_dimensions, record.dimensions),
        f"{layout.PROJECTOR}.bias": (record.multivector_dimensions,),
        embedding.name: (embedding.shape[0], record.dimensions),
    }
    for name, shape in said.items():
        if shapes.get(name) != shape:
            raise CheckpointError(
                f"{path / layout.VARIANT} says that {name} has the shape {list(shape)}, "
                f"the weights say {shapes.get(name)}; merge again"
            )
    if DTYPE_NAMES.get(embedding.dtype) != record.dtype:
        raise CheckpointError(
            f"{path / layout.VARIANT} says {record.dtype}, the weights are {embedding.dtype}; merge again"
        )
    return Variant(
        path=path,
        task=record.task,
        source=record.source,
        revision=record.revision,
        digest=record.digest,
        r=record.r,
        alpha=record.alpha,
        dtype=record.dtype,
        dimensions=record.dimensions,
        multivector_dimensions=record.multivector_dimensions,
        positions=text_config(config).get("max_position_embeddings"),
    )


def _embedding(path: Path, tensors: dict[str, Tensor]) -> Tensor:
    for name, tensor in tensors.items():
        if name.endswith("embed_tokens.weight"):
            return tensor
    raise CheckpointError(f"{path} has no token embeddings among its weights; fetch or merge it again")


def _what_is_missing(path: Path) -> str:
    if not (path / layout.CONFIG).exists():
        return f"it has no {layout.CONFIG}; fetch or merge it again"
    config = load_json(path / layout.CONFIG)
    if not has_weights(path):
        return "it has no weights; fetch or merge it again"
    if layout.ARCHITECTURE in config.get("architectures", []):
        return f"it has no {layout.VARIANT}; merge again"
    read_shards(path)
    return f"it is the base without {layout.ADAPTER_WEIGHTS}; fetch it again and merge it"
