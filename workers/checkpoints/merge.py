"""Merges adapters into the base: W + scale * B A for every adapted weight, one variant per task.

Weights are streamed in blocks of rows, so memory does not grow with the checkpoint. Products are float32 and
may differ in the last bit between machines, and with them, rarely, the digest.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.adapters import Adapter, Rule, read_adapters, read_rule
from triptych.workers.checkpoints.configs import write_small_files
from triptych.workers.checkpoints.folders import load_json, whole_folder, write_json
from triptych.workers.checkpoints.hub import Source
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.shards import (
    DTYPE_NAMES,
    ITEM_BYTES,
    LARGEST,
    Spec,
    Tensor,
    decode,
    encode,
    read_shards,
    write_index,
    write_shard,
)
from triptych.workers.checkpoints.space import Advance, Progress, WeightsDigest, source_digest
from triptych.workers.checkpoints.variant import FORMAT, Record, read_record, read_variant, text_config
from triptych.workers.shared.contract import PoolName

BLOCK_VALUES = 1 << 20
"""Values merged at a time: a few arrays of 4 MiB each."""

_PROJECTOR = f"{layout.PROJECTOR}.weight"


def merge(
    source: Source,
    out: Path,
    tasks: Sequence[PoolName],
    *,
    float32: bool,
    force: bool,
    say: Callable[[str], object],
    progress: Progress,
) -> None:
    """Write `out/<task>` for each task, in the source's dtype or in float32.

    Keeps an existing variant of the same source and dtype; replaces any other folder only with `force`.
    Raises `CheckpointError`, before it writes anything, if the source is damaged, an adapter does not fit, or
    a folder exists.
    """
    folder = source.folder
    shards = read_shards(folder)
    base = [tensor for tensors in shards.values() for tensor in tensors]
    if f"{layout.PROJECTOR}.bias" not in {tensor.name for tensor in base}:
        raise CheckpointError(f"the base in {folder} has no {layout.PROJECTOR}.bias; fetch it again")
    strange = [tensor.name for tensor in base if tensor.dtype not in ITEM_BYTES]
    if strange:
        raise CheckpointError(
            f"{folder} holds quantized weights, which cannot be merged: {', '.join(strange)}"
        )
    layers = text_config(load_json(folder / layout.CONFIG)).get("num_hidden_layers")
    if not isinstance(layers, int):
        raise CheckpointError(f"{folder / layout.CONFIG} has no num_hidden_layers")
    adapters = read_adapters(folder, base, layers, tasks)
    specs = {
        name: [Spec(tensor.name, "F32" if float32 else tensor.dtype, tensor.shape) for tensor in tensors]
        for name, tensors in shards.items()
    }
    record = _record(source, source_digest(folder, progress), read_rule(folder), specs)
    missing = []
    for task in tasks:
        if (out / task).exists() and not force:
            _check_existing(out / task, record)
            say(f"{out / task} exists already, with this source and dtype: nothing to do")
        else:
            missing.append(task)
    nbytes = sum(spec.nbytes for shard in specs.values() for spec in shard)
    _check_space(out, nbytes * len(missing))
    for task in missing:
        weights = WeightsDigest()
        advance = progress(f"merging {task}", nbytes)
        with whole_folder(out / task, replace=force) as partial:
            for name, shard in specs.items():
                blocks = _shard(shards[name], shard, adapters[task], weights, advance)
                write_shard(partial / name, shard, blocks)
            write_index(partial, specs)
            digest = weights.hexdigest()
            tied = "lm_head.weight" not in {tensor.name for tensor in base}
            write_small_files(folder, partial, record.dtype, record.multivector_dimensions, tied=tied)
            its = msgspec.structs.replace(record, task=task, digest=digest)
            write_json(partial / layout.VARIANT, msgspec.to_builtins(its))
        say(f"{out / task}: {nbytes / 1e6:,.1f} MB, digest {digest[:16]}")


def _record(source: Source, digest: str, rule: Rule, specs: Mapping[str, list[Spec]]) -> Record:
    """The record of the variants of this merge; task and digest are placeholders."""
    [projector] = [spec for shard in specs.values() for spec in shard if spec.name == _PROJECTOR]
    return Record(
        format=FORMAT,
        task="retrieval",
        source=source.name,
        revision=source.revision,
        source_digest=digest,
        digest="",
        r=rule.r,
        alpha=rule.lora_alpha,
        dtype=DTYPE_NAMES[projector.dtype],
        projector=True,
        dimensions=projector.shape[1],
        multivector_dimensions=projector.shape[0],
    )


def _check_existing(folder: Path, wanted: Record) -> None:
    """Raise `CheckpointError` unless `folder` is what this merge would write."""
    why = ""
    try:
        read_variant(folder)
        record = read_record(folder)
        if record.source_digest != wanted.source_digest:
            why = "was merged from another source"
        elif record.dtype != wanted.dtype:
            why = f"is {record.dtype}, not {wanted.dtype}"
    except CheckpointError as error:
        why = f"is damaged ({error})"
    if why:
        raise CheckpointError(f"{folder} exists and {why}. Replace it with --force")


def _shard(
    tensors: Sequence[Tensor],
    specs: Sequence[Spec],
    adapters: Mapping[str, Adapter],
    digest: WeightsDigest,
    advance: Advance,
) -> Iterator[bytes]:
    for tensor, spec in zip(tensors, specs, strict=True):
        yield from digest.watch(spec, _merged(tensor, adapters.get(tensor.name), spec.dtype), advance)


def _merged(tensor: Tensor, adapter: Adapter | None, dtype: str) -> Iterator[bytes]:
    """The merged bytes of a tensor, in blocks."""
    item = ITEM_BYTES[tensor.dtype]
    if adapter is None:
        for block in tensor.blocks(BLOCK_VALUES * item):
            yield block if dtype == tensor.dtype else encode(decode(block, tensor.dtype), dtype)
        return
    a, b = adapter.factors()
    columns = tensor.shape[1]
    rows = max(1, BLOCK_VALUES // columns)
    row = 0
    for block in tensor.blocks(rows * columns * item):
        values = decode(block, tensor.dtype).reshape(-1, columns)
        change = b[row : row + rows] @ a
        change *= np.float32(adapter.scale)
        values += change
        # `not <=` also catches NaN.
        if not float(np.abs(values).max()) <= LARGEST[dtype]:
            raise CheckpointError(f"merging {tensor.name} gives values that {DTYPE_NAMES[dtype]} cannot hold")
        row += len(values)
        yield encode(values, dtype)


def _check_space(out: Path, needed: int) -> None:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise CheckpointError(
            f"{out} needs {math.ceil(needed / 1e6):,} MB, the disk has {free // 10**6:,} MB free"
        )
