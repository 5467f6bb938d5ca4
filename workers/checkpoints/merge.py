"""W + scale * B A for every adapted weight of a checkpoint, streamed: one variant for each task.

Only a block of rows is in memory at a time, so what a merge needs does not grow with the checkpoint or
its largest tensor. The products are float32 and may differ in the last bit between machines, and so,
rarely, may a digest.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from workers.checkpoints import layout
from workers.checkpoints.adapters import Adapter, Rule, read_adapters, read_rule
from workers.checkpoints.configs import write_small_files
from workers.checkpoints.digest import Advance, WeightsDigest, source_digest, source_files
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.floats import LARGEST, decode, encode
from workers.checkpoints.shards import DTYPE_NAMES, ITEM_BYTES, Tensor, load_json, read_shards
from workers.checkpoints.source import Source
from workers.checkpoints.variant import FORMAT, Record, read_record, read_variant, text_config
from workers.checkpoints.writing import ShardWriter, Spec, whole_folder, write_index, write_json
from workers.shared.contract import PoolName

BLOCK_VALUES = 1 << 20
"""Values merged at a time: 4 MiB in float32, and a handful of arrays of that size."""

Progress = Callable[[str, int], Advance]
"""Starts a bar: its title and the bytes it will count."""


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

    A variant that is there already, of the same source and dtype, is left alone; anything else there is
    replaced only by `force`. Raises `CheckpointError` before anything is written where the source is not
    sound, an adapter does not fit or an output is in the way.
    """
    folder = source.folder
    shards = read_shards(folder)
    base = [tensor for tensors in shards.values() for tensor in tensors]
    if f"{layout.PROJECTOR}.bias" not in {tensor.name for tensor in base}:
        raise CheckpointError(f"the base in {folder} lacks {layout.PROJECTOR}.bias; fetch it again")
    strange = [tensor.name for tensor in base if tensor.dtype not in ITEM_BYTES]
    if strange:
        raise CheckpointError(
            f"{folder} holds quantised weights, which cannot be merged: {', '.join(strange)}"
        )
    layers = text_config(load_json(folder / layout.CONFIG)).get("num_hidden_layers")
    if not isinstance(layers, int):
        raise CheckpointError(f"{folder / layout.CONFIG} does not say num_hidden_layers")
    adapters = read_adapters(folder, base, layers, tasks)
    total = sum(path.stat().st_size for path in source_files(folder))
    came_from = source_digest(folder, progress("reading the source", total))

    merging = _Merge(source, came_from, shards, read_rule(folder), float32)
    missing = []
    for task in tasks:
        if (out / task).exists() and not force:
            merging.check_existing(out / task)
            say(f"{out / task} is already there, of this source and dtype: nothing to do")
        else:
            missing.append(task)
    _check_space(out, merging.nbytes * len(missing))
    for task in missing:
        with whole_folder(out / task, replace=force) as partial:
            digest = merging.write(partial, task, adapters[task], progress(f"merging {task}", merging.nbytes))
        say(f"{out / task}: {merging.nbytes / 1e6:,.1f} MB, digest {digest[:16]}")


class _Merge:
    def __init__(
        self, source: Source, came_from: str, shards: Mapping[str, list[Tensor]], rule: Rule, float32: bool
    ) -> None:
        self._source, self._came_from, self._shards, self._rule = source, came_from, shards, rule
        self._specs = {
            name: [Spec(t.name, "F32" if float32 else t.dtype, t.shape) for t in tensors]
            for name, tensors in shards.items()
        }
        self._by_name = {spec.name: spec for specs in self._specs.values() for spec in specs}
        self.nbytes = sum(spec.nbytes for spec in self._by_name.values())
        projector = self._by_name[f"{layout.PROJECTOR}.weight"]
        self._dtype = DTYPE_NAMES[projector.dtype]
        self._multivector_dimensions, self._dimensions = projector.shape

    def check_existing(self, folder: Path) -> None:
        """Raises `CheckpointError` unless `folder` is what this merge would write."""
        why = ""
        try:
            read_variant(folder)
            record = read_record(folder)
            if record.source_digest != self._came_from:
                why = "was merged from another source"
            elif record.dtype != self._dtype:
                why = f"is {record.dtype}, not {self._dtype}"
        except CheckpointError as error:
            why = f"is not a sound variant ({error})"
        if why:
            raise CheckpointError(f"{folder} is in the way: it {why}. Replace it with --force")

    def write(self, target: Path, task: PoolName, adapters: dict[str, Adapter], advance: Advance) -> str:
        """A variant's files. Gives the digest of its weights."""
        digest = WeightsDigest()
        for name, tensors in self._shards.items():
            with ShardWriter(target / name, self._specs[name]) as writer:
                for tensor in tensors:
                    dtype = self._by_name[tensor.name].dtype
                    digest.begin(tensor.name, dtype, tensor.shape)
                    for block in _merged(tensor, adapters.get(tensor.name), dtype):
                        writer.write(block)
                        digest.update(block)
                        advance(len(block))
        write_index(target, self._specs)
        write_small_files(
            self._source.folder,
            target,
            dtype=self._dtype,
            projector=self._multivector_dimensions,
            tied="lm_head.weight" not in self._by_name,
        )
        record = Record(
            format=FORMAT,
            task=task,
            source=self._source.name,
            revision=self._source.revision,
            source_digest=self._came_from,
            digest=digest.hexdigest(),
            r=self._rule.r,
            alpha=self._rule.alpha,
            dtype=self._dtype,
            projector=True,
            dimensions=self._dimensions,
            multivector_dimensions=self._multivector_dimensions,
        )
        write_json(target / layout.VARIANT, msgspec.to_builtins(record))
        return record.digest


def _merged(tensor: Tensor, adapter: Adapter | None, dtype: str) -> Iterator[bytes]:
    """The tensor's bytes as a variant has them, a block at a time."""
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
        # Written so that NaN is caught too.
        if not float(np.abs(values).max()) <= LARGEST[dtype]:
            raise CheckpointError(f"merging {tensor.name} gives values that {DTYPE_NAMES[dtype]} cannot hold")
        row += len(values)
        yield encode(values, dtype)


def _check_space(out: Path, needed: int) -> None:
    there = out.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise CheckpointError(
            f"{out} needs {math.ceil(needed / 1e6):,} MB, the disk has {free // 10**6:,} MB left"
        )
