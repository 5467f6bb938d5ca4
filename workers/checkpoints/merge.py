"""Merges adapters into the base: W + scale * B A for every adapted weight, one variant per pool.

In the variant of a shared pool base and adapters stay apart (`shared_variant.py`).

Weights are streamed in blocks of rows, so memory does not grow with the checkpoint. Products are float32 and
may differ in the last bit between machines, and with them, rarely, the digest.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
from tqdm import tqdm

from triptych.workers.checkpoints import layout, shared_variant
from triptych.workers.checkpoints.adapters import Low
from triptych.workers.checkpoints.configs import write_small_files
from triptych.workers.checkpoints.folders import locked, whole_folder, write_json
from triptych.workers.checkpoints.hub import Source
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.layouts import MERGED_LAYOUTS
from triptych.workers.checkpoints.layouts.unmerged import Part, Plan, Shards, Unmerged
from triptych.workers.checkpoints.shards import (
    DTYPE_NAMES,
    ITEM_BYTES,
    LARGEST,
    Spec,
    Tensor,
    decode,
    encode,
    write_index,
    write_shard,
)
from triptych.workers.checkpoints.space import WeightsDigest, progress_bar, source_digest
from triptych.workers.checkpoints.variant import FORMAT, Record, embedding_of, read_record, read_variant
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import Family

BLOCK_VALUES = 1 << 20
"""Values merged at a time: a few arrays of 4 MiB each."""


def merge(
    source: Source,
    out: Path,
    pools: Sequence[PoolName],
    *,
    float32: bool,
    force: bool,
    say: Callable[[str], object],
) -> None:
    """Write `out/<pool>` for each pool, in the source's dtype or in float32.

    Keeps an existing variant of the same source and dtype; replaces any other folder only with `force`.
    Raises `CheckpointError`, before it writes anything, if the source is damaged, an adapter does not fit, or
    a folder exists.
    """
    folder, family = source.folder, source.family
    if strange := ", ".join(pool for pool in pools if pool not in family.worker_pools):
        known = ", ".join(family.worker_pools)
        raise CheckpointError(f"{folder} holds {family.name}, which has no {strange}; its pools are {known}")
    wanted = dict.fromkeys(adapter for pool in pools for adapter in family.adapters_of(pool))
    unmerged = MERGED_LAYOUTS[family.layout].read(family, folder, [*wanted])
    base = unmerged.weights
    record = _record(source, source_digest(family, folder), base, float32=float32)
    plans = {pool: _plan(family, pool, unmerged) for pool in pools}
    specs = {pool: _specs(shards, float32=float32) for pool, (shards, _) in plans.items()}
    sizes = {pool: sum(spec.nbytes for spec in chain(*files.values())) for pool, files in specs.items()}
    shapes = {name: tensor.shape for name, tensor in base.items()}
    with locked(out):
        missing = []
        for pool in pools:
            if (out / pool).exists() and not force:
                _check_existing(out / pool, record)
                say(f"{out / pool} exists already, with this source and dtype: nothing to do")
            else:
                missing.append(pool)
        _check_space(out, sum(sizes[pool] for pool in missing))
        for pool in missing:
            first = unmerged.adapters[family.adapters_of(pool)[0]]
            digest = WeightsDigest()
            with progress_bar(f"merging {pool}", sizes[pool]) as bar, whole_folder(out / pool) as partial:
                # First, because the source may lack some of these files.
                write_small_files(family, folder, partial, record.dtype, shapes)
                shards, configs = plans[pool]
                for name, parts in shards.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    blocks = _shard(name, parts, specs[pool][name], digest, bar)
                    write_shard(partial / name, specs[pool][name], blocks)
                write_index(partial, {name: specs[pool][name] for name in unmerged.shards})
                for name, content in configs.items():
                    write_json(partial / name, content)
                written = msgspec.structs.replace(
                    record, task=pool, digest=digest.hexdigest(), r=first.r, alpha=first.alpha
                )
                write_json(partial / layout.VARIANT, msgspec.to_builtins(written))
            say(f"{out / pool}: {sizes[pool] / 1e6:,.1f} MB, digest {written.digest[:16]}")


def _plan(family: Family, pool: PoolName, unmerged: Unmerged) -> Plan:
    adapters = {name: unmerged.adapters[name] for name in family.adapters_of(pool)}
    if pool == family.shared_pool:
        return shared_variant.plan(unmerged, adapters)
    [adapter] = adapters.values()
    return {
        file: [part._replace(low=adapter.added.get(part.tensor.name)) for part in parts]
        for file, parts in unmerged.shards.items()
    }, {}


def _specs(shards: Shards, *, float32: bool) -> dict[str, list[Spec]]:
    return {
        file: [Spec(name, "F32" if float32 else tensor.dtype, tensor.shape) for name, tensor, _ in parts]
        for file, parts in shards.items()
    }


def _record(source: Source, digest: str, base: Mapping[str, Tensor], *, float32: bool) -> Record:
    """The record of the variants of this merge; task, digest, rank and alpha are placeholders."""
    embedding = embedding_of(source.folder, source.family, base)
    projector = base.get(f"{layout.PROJECTOR}.weight")
    return Record(
        format=FORMAT,
        task="",
        source=source.name,
        revision=source.revision,
        source_digest=digest,
        digest="",
        r=0,
        alpha=0,
        dtype=DTYPE_NAMES["F32" if float32 else embedding.dtype],
        projector=projector is not None,
        dimensions=embedding.shape[1],
        multivector_dimensions=projector.shape[0] if projector else 0,
    )


def _check_existing(folder: Path, wanted: Record) -> None:
    """Raise `CheckpointError` unless `folder` is what this merge would write."""
    try:
        read_variant(folder)
        record = read_record(folder)
    except CheckpointError as error:
        why = f"is damaged ({error})"
    else:
        if record.source_digest != wanted.source_digest:
            why = "was merged from another source"
        elif record.dtype != wanted.dtype:
            why = f"is {record.dtype}, not {wanted.dtype}"
        else:
            return
    raise CheckpointError(f"{folder} exists and {why}. Replace it with --force")


def _shard(
    file: str, parts: Sequence[Part], specs: Sequence[Spec], digest: WeightsDigest, bar: "tqdm[NoReturn]"
) -> Iterator[bytes]:
    folder, slash, _ = file.rpartition("/")
    for part, spec in zip(parts, specs, strict=True):
        named = spec._replace(name=f"{folder}{slash}{spec.name}")
        for block in digest.watch(named, _merged(part.tensor, part.low, spec.dtype)):
            yield block
            bar.update(len(block))


def _merged(tensor: Tensor, low: Low | None, dtype: str) -> Iterator[bytes]:
    """The merged bytes of a tensor, in blocks."""
    item = ITEM_BYTES[tensor.dtype]
    if low is None:
        for block in tensor.blocks(BLOCK_VALUES * item):
            yield block if dtype == tensor.dtype else encode(decode(block, tensor.dtype), dtype)
        return
    a, b = low.factors()
    columns = tensor.shape[1]
    rows = max(1, BLOCK_VALUES // columns)
    row = 0
    for block in tensor.blocks(rows * columns * item):
        values = decode(block, tensor.dtype).reshape(-1, columns)
        change = b[row : row + rows] @ a
        change *= np.float32(low.scale)
        values += change
        # `not <=` also catches NaN.
        if not float(np.abs(values).max()) <= LARGEST[dtype]:
            raise CheckpointError(f"merging {tensor.name} gives values that {DTYPE_NAMES[dtype]} cannot hold")
        row += len(values)
        yield encode(values, dtype)


def _check_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        raise CheckpointError(
            f"{out} needs {math.ceil(needed / 1e6):,} MB, the disk has {free // 10**6:,} MB free"
        )
