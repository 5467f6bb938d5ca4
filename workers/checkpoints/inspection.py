"""Reports what a folder is and whether it can be served, for people and for scripts."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.layouts.unmerged import Kind
from triptych.workers.checkpoints.shards import DTYPE_NAMES, Tensor, has_weights
from triptych.workers.checkpoints.shared_variant import read_all
from triptych.workers.checkpoints.space import weights_digest
from triptych.workers.checkpoints.variant import Variant, identify, read_variant

_KINDS: dict[Kind, str] = {
    "variant": "a merged variant",
    "official": "a merged checkpoint without variant.json, like the official jina-embeddings-v4-vllm-*",
    "published": "a published checkpoint, which is served as it is",
    "upstream": "a base and adapters, not merged",
    "incomplete": "an incomplete checkpoint",
    "not a checkpoint": "not a checkpoint of a known model",
}
_DIGEST_STATES = {None: "not compared", True: "matches the weights", False: "DOES NOT MATCH"}
# Fields of the JSON report, those of `Variant` first. A folder that is no variant has a dtype too.
_VARIANT_FIELDS = ("task", "dtype", "dimensions", "multivector_dimensions", "source", "revision")
_OWN_FIELDS = ("dtype", "digest", "digest_matches", "servable", "why_not")


class Report(NamedTuple):
    """`variant` is None for a folder that is no variant; `dtype` is of its weights, None without weights.

    `digest` is the recorded digest, or the computed one if there is none. `digest_matches` is None unless
    both are known. `why_not` is None if the folder can be served.
    """

    path: Path
    kind: Kind
    variant: Variant | None
    dtype: str | None
    digest: str | None
    digest_matches: bool | None
    why_not: str | None

    @property
    def servable(self) -> bool:
        return self.why_not is None

    def as_json(self) -> str:
        """A JSON object; fields of a variant are null for other folders."""
        document: dict[str, Any] = {"path": str(self.path), "kind": self.kind}
        document |= {name: getattr(self.variant, name, None) for name in _VARIANT_FIELDS}
        document |= {name: getattr(self, name) for name in _OWN_FIELDS}
        return json.dumps(document, indent=2)

    def as_text(self) -> str:
        lines = [f"{self.path}: {_KINDS[self.kind]}"]
        if variant := self.variant:
            multivector = "no projector: multi-vectors are refused"
            if variant.family.multivector is None:
                multivector = f"{variant.family.name} has none"
            elif variant.multivector_dimensions:
                multivector = f"{variant.multivector_dimensions} dimensions"
            if variant.adapters:
                lines.append(f"  adapters     {', '.join(variant.adapters)}, rank {variant.rank}, not merged")
            lines += [
                f"  task         {variant.task or 'unknown: the worker takes it from WORKER_TASK'}",
                f"  dtype        {self.dtype}, {variant.dimensions} dimensions",
                f"  multi-vector {multivector}",
                f"  source       {variant.source} (revision {variant.revision or 'unknown'})",
            ]
        if self.digest is not None:
            lines.append(f"  digest       {self.digest} ({_DIGEST_STATES[self.digest_matches]})")
        lines.append("  can be served" if self.servable else f"  cannot be served: {self.why_not}")
        return "\n".join(lines)


def verify(path: Path, *, full: bool) -> Report:
    """Inspect a folder; with `full` also read its weights. Does not raise for a damaged folder."""
    variant, computed, why_not = None, None, None
    tensors: list[Tensor] = []
    try:
        variant = read_variant(path)
    except CheckpointError as error:
        why_not = str(error)
    try:
        adapters = variant.adapters if variant else ()
        tensors = read_all(path, adapters) if has_weights(path) else []
        computed = weights_digest(tensors) if full and tensors else None
    except CheckpointError as error:
        why_not = why_not or str(error)
    recorded = variant.digest if variant else None
    matches = computed == recorded if computed and recorded else None
    if matches is False:
        why_not = f"its weights do not match {layout.VARIANT}; merge again"
    dtypes = {DTYPE_NAMES.get(tensor.dtype, tensor.dtype) for tensor in tensors}
    dtype = variant.dtype if variant else "/".join(sorted(dtypes)) or None
    return Report(path, identify(path).kind, variant, dtype, recorded or computed, matches, why_not)
