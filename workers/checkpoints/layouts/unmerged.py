"""What a checkpoint layout has to say: how a folder is recognized and imitated, and how it is merged."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from triptych.workers.checkpoints.adapters import Adapter, Low
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, CheckpointError
from triptych.workers.checkpoints.layouts.sizes import Config, Shapes
from triptych.workers.checkpoints.shards import ITEM_BYTES, Tensor, read_shards
from triptych.workers.shared.families import Family

Kind = Literal["variant", "official", "published", "upstream", "incomplete", "not a checkpoint"]

Found = tuple[Kind, str]
"""What a folder is, and why it cannot be served ("" if it can)."""


class Part(NamedTuple):
    """A weight of a variant: the tensor that it comes from, and what is merged into it."""

    name: str
    tensor: Tensor
    low: Low | None = None


Shards = Mapping[str, Sequence[Part]]
"""File -> its weights."""


Plan = tuple[Shards, Mapping[str, Config]]
"""What a variant is made of: file -> its weights, and file -> its JSON."""


class Unmerged(NamedTuple):
    """A base and its adapters: file -> its weights, and adapter -> what it adds to which tensors."""

    shards: Shards
    adapters: Mapping[str, Adapter]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of all files, by their names in a variant."""
        return {part.name: part.tensor for parts in self.shards.values() for part in parts}


class Layout(Protocol):
    """A module of this package. Errors are `CheckpointError`; they name files, keys and shapes."""

    EMBEDDING: str
    """The end of the name of the token embeddings in a folder that is served."""

    def kind(self, family: Family, folder: Path, config: Config, names: Container[str]) -> Found | None:
        """What a folder without `variant.json`, with tensors of `names`, is; None for another model."""

    def tiny(self, family: Family, config: Config) -> Mapping[str, Shapes]:
        """File -> its tensors, for a random checkpoint."""


class MergedLayout(Layout, Protocol):
    """The layout of a base and adapters, which are merged before they are served."""

    def adapter_folders(self, family: Family) -> Sequence[str]:
        """The folders of the adapters; empty if the base's files hold them too."""

    def read(self, family: Family, folder: Path, wanted: Sequence[str]) -> Unmerged:
        """Read the headers of the base and of the adapters `wanted`, and check that they fit."""

    def changes(self, family: Family, config: Config, weights: Mapping[str, tuple[int, ...]]) -> Config:
        """What a variant's config has instead of the source's; `weights` are its shapes by name."""


class Base(NamedTuple):
    """A base: file -> its weights in a variant, name -> all of its tensors, and the number of its layers."""

    shards: Shards
    held: Mapping[str, Tensor]
    layers: int


def read_base(folder: Path, rename: Callable[[str], str | None]) -> Base:
    """Read a base.

    `rename` gives a tensor's name in the variant, None for one that the variant does not have. Raises
    `CheckpointError` for weights that cannot be merged.
    """
    shards = read_shards(folder)
    held = {tensor.name: tensor for tensors in shards.values() for tensor in tensors}
    if strange := ", ".join(name for name, tensor in held.items() if tensor.dtype not in ITEM_BYTES):
        raise CheckpointError(f"{folder} holds quantized weights, which cannot be merged: {strange}")
    kept = {
        file: [Part(name, tensor) for tensor in tensors if (name := rename(tensor.name))]
        for file, tensors in shards.items()
    }
    layers = text_config(load_json(folder / CONFIG)).get("num_hidden_layers")
    if not isinstance(layers, int):
        raise CheckpointError(f"{folder / CONFIG} has no num_hidden_layers")
    return Base(kept, held, layers)


def refuse_lacking(folder: Path, names: Iterable[str], held: Container[str]) -> None:
    """Raise `CheckpointError` if the base lacks one of `names`."""
    if lacking := ", ".join(name for name in names if name not in held):
        raise CheckpointError(f"the base in {folder} has no {lacking}; fetch it again")


def text_config(config: Config) -> Config:
    """Settings of the text model: at the top level in older configs, under `text_config` in newer ones."""
    return {**config, **(config.get("text_config") or {})}
