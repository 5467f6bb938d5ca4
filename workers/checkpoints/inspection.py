"""Reports what a folder is and whether it can be served, for people and for scripts."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workers.checkpoints import layout
from workers.checkpoints.digest import Advance, weights_digest
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import DTYPE_NAMES, has_weights, read_shards
from workers.checkpoints.variant import Kind, Variant, kind_of, read_variant

_KINDS: dict[Kind, str] = {
    "variant": "a merged variant",
    "official": "a merged checkpoint without variant.json, like the official jina-embeddings-v4-vllm-*",
    "upstream": "a base and adapters, not merged",
    "incomplete": "an incomplete checkpoint",
    "not a checkpoint": "not a checkpoint of jina-embeddings-v4",
}


@dataclass(frozen=True, slots=True)
class Report:
    """`digest` is the recorded digest, or the computed one if there is none.

    `digest_matches` is None unless both are known. `why_not` is None if the folder can be served.
    """

    path: str
    kind: Kind
    task: str | None
    dtype: str | None
    dimensions: int | None
    multivector_dimensions: int | None
    source: str | None
    revision: str | None
    digest: str | None
    digest_matches: bool | None
    servable: bool
    why_not: str | None

    def as_json(self) -> str:
        """A JSON object with the fields of this class."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def as_text(self) -> str:
        """Lines for people."""
        multivector = f"{self.multivector_dimensions} dimensions"
        if self.multivector_dimensions is None:
            multivector = "no projector: multi-vectors are refused"
        digest_state = {None: "not compared", True: "matches the weights", False: "DOES NOT MATCH"}
        lines = [f"{self.path}: {_KINDS[self.kind]}"]
        if self.dimensions is not None:
            lines += [
                f"  task         {self.task or 'unknown: the worker takes it from WORKER_TASK'}",
                f"  dtype        {self.dtype}, {self.dimensions} dimensions",
                f"  multi-vector {multivector}",
                f"  source       {self.source} (revision {self.revision or 'unknown'})",
            ]
        if self.digest is not None:
            lines.append(f"  digest       {self.digest} ({digest_state[self.digest_matches]})")
        lines.append("  can be served" if self.servable else f"  cannot be served: {self.why_not}")
        return "\n".join(lines)


def verify(path: Path, *, full: bool, progress: Callable[[str, int], Advance]) -> Report:
    """Inspect a folder; with `full` also read its weights. Does not raise for a damaged folder."""
    variant: Variant | None = None
    why_not, digest, matches = None, None, None
    try:
        variant = read_variant(path)
        digest = variant.digest
    except CheckpointError as error:
        why_not = str(error)
    try:
        if full and has_weights(path):
            tensors = [tensor for shard in read_shards(path).values() for tensor in shard]
            advance = progress("reading the weights", sum(tensor.nbytes for tensor in tensors))
            computed = weights_digest(tensors, advance)
            matches = None if digest is None else computed == digest
            digest = digest or computed
    except CheckpointError as error:
        why_not = why_not or str(error)
    if matches is False:
        why_not = f"its weights do not match {layout.VARIANT}; merge again"
    return Report(
        path=str(path),
        kind=kind_of(path),
        task=variant.task if variant else None,
        dtype=variant.dtype if variant else _dtype(path),
        dimensions=variant.dimensions if variant else None,
        multivector_dimensions=variant.multivector_dimensions if variant else None,
        source=variant.source if variant else None,
        revision=variant.revision if variant else None,
        digest=digest,
        digest_matches=matches,
        servable=why_not is None,
        why_not=why_not,
    )


def _dtype(path: Path) -> str | None:
    try:
        shards = read_shards(path) if has_weights(path) else {}
    except CheckpointError:
        return None
    names = {DTYPE_NAMES.get(tensor.dtype, tensor.dtype) for shard in shards.values() for tensor in shard}
    return "/".join(sorted(names)) or None
