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

from workers.checkpoints import layout
from workers.checkpoints.adapters import Adapter, Rule, read_adapters, read_rule
from workers.checkpoints.configs import write_small_files
from workers.checkpoints.digest import Advance, WeightsDigest, files_digest, source_files
from workers.checkpoints.floats import LARGEST, decode, encode
from workers.checkpoints.hub import Source
from workers.checkpoints.layout import CheckpointError
from workers.checkpoints.shards import DTYPE_NAMES, ITEM_BYTES, Tensor, load_json, read_shards
from workers.checkpoints.variant import FORMAT, Record, read_record, read_variant, text_config
from workers.checkpoints.writing import ShardWriter, Spec, whole_folder, write_index, write_json
from workers.shared.contract import PoolName

BLOCK_VALUES = 1 << 20
"""Values merged at a time: a few arrays of 4 MiB each."""

Progress = Callable[[str, int], Advance]
"""Starts a progress bar with a title and its total in bytes."""


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
    files = source_files(folder)
    total = sum(path.stat().st_size for path in files)
    digest = files_digest(folder, files, progress("reading the source", total))

    merging = _Merge(source, digest, shards, read_rule(folder), float32)
    missing = []
    for task in tasks:
        if (out / task).exists() and not force:
            merging.check_existing(out / task)
            say(f"{out / task} exists already, with this source and dtype: nothing to do")
        else:
            missing.append(task)
    _check_space(out, merging.nbytes * len(missing))
    for task in missing:
        with whole_folder(out / task, replace=force) as partial:
            digest = merging.write(partial, task, adapters[task], progress(f"merging {task}", merging.nbytes))
        say(f"{out / task}: {merging.nbytes / 1e6:,.1f} MB, digest {digest[:16]}")


class _Merge:
    def __init__(
        self,
        source: Source,
        source_digest: str,
        shards: Mapping[str, list[Tensor]],
        rule: Rule,
        float32: bool,
    ) -> None:
        self._source, self._source_digest, self._shards, self._rule = source, source_digest, shards, rule
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
        """Raise `CheckpointError` unless `folder` is what this merge would write."""
        why = ""
        try:
            read_variant(folder)
            record = read_record(folder)
            if record.source_digest != self._source_digest:
                why = "was merged from another source"
            elif record.dtype != self._dtype:
                why = f"is {record.dtype}, not {self._dtype}"
        except CheckpointError as error:
            why = f"is damaged ({error})"
        if why:
            raise CheckpointError(f"{folder} exists and {why}. Replace it with --force")

    def write(self, target: Path, task: PoolName, adapters: dict[str, Adapter], advance: Advance) -> str:
        """Write the files of a variant. Returns the digest of its weights."""
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
            source_digest=self._source_digest,
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
    there = out.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise CheckpointError(
            f"{out} needs {math.ceil(needed / 1e6):,} MB, the disk has {free // 10**6:,} MB free"
        )
