"""Writes random checkpoints in the layouts of the published models, for demos, tests and benchmarks.

Their small files are in `tiny_files/<model>/`. The tokenizer of v4 is a byte-level BPE like Qwen2's, trained
on a little text in many languages and some code. Other models have it too, with the changes in their folder.
v3 has its own, a Unigram like XLM-RoBERTa's, trained on words of many languages.
"""

import json
import math
import re
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.folders import load_json, locked, whole_folder, write_json
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.layouts import LAYOUTS
from triptych.workers.checkpoints.shards import Spec, encode, write_index, write_shard
from triptych.workers.checkpoints.space import progress_bar
from triptych.workers.shared.families import V4, Family

FILES = Path(__file__).with_name("tiny_files")
TINY = "config.json"
"""The real hidden size and heads; v4 also has the real mrope and 128-d multi-vectors: about 75 MB."""
NANO = "config.nano.json"
"""The least arithmetic that the architecture allows."""
FULL = "config.full.json"
"""The shapes of the published model, about 7.9 GB with the adapters; only for v4."""

DTYPE = "BF16"
# Threads write files side by side and draw few values at a time: the full size needs all cores, but little
# memory.
BLOCK_VALUES = 1 << 22


def write_tiny(family: Family, out: Path, config_file: str, seed: int) -> None:
    """Write a checkpoint to `out`; deterministic in `config_file` (`TINY`, `NANO` or `FULL`) and seed.

    Raises `CheckpointError` if `out` exists.
    """
    small = FILES / family.name
    config = load_json(small / config_file)
    files = {
        name: [Spec(tensor, DTYPE, shape) for tensor, shape in shapes]
        for name, shapes in LAYOUTS[family.layout].tiny(family, config).items()
    }
    total = sum(spec.nbytes for specs in files.values() for spec in specs)
    with (
        locked(out.absolute().parent),
        progress_bar("writing random weights", total) as bar,
        whole_folder(out) as partial,
    ):
        if out.exists():
            raise CheckpointError(f"{out} exists already; remove it or choose another name")
        shutil.copytree(small, partial, ignore=shutil.ignore_patterns(TINY, NANO, FULL), dirs_exist_ok=True)
        write_json(partial / layout.CONFIG, config)
        _write_tokenizer(small, partial)

        lock = threading.Lock()

        def write(name: str) -> None:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            # Adapters in files of their own have the same names.
            salt = name if Path(name).parent.name not in ("", "adapters") else ""
            write_shard(partial / name, files[name], counted(_values(files[name], salt, seed)))

        def counted(blocks: Iterable[bytes]) -> Iterator[bytes]:
            for block in blocks:
                yield block
                with lock:
                    bar.update(len(block))

        with ThreadPoolExecutor() as threads:
            # `list` raises what a thread raised.
            list(threads.map(write, files))
        if layout.SINGLE not in files:
            write_index(partial, {name: specs for name, specs in files.items() if "/" not in name})


def _write_tokenizer(small: Path, out: Path) -> None:
    """Write v4's tokenizer with the changes in `small`, and the files in which Qwen2 repeats a BPE."""
    shared = FILES / V4.name / layout.TOKENIZER
    changes = small / layout.TOKENIZER
    if changes != shared:
        merged = load_json(shared) | (load_json(changes) if changes.exists() else {})
        (out / layout.TOKENIZER).write_text(json.dumps(merged, ensure_ascii=False))
    model = Tokenizer.from_file(str(out / layout.TOKENIZER)).model
    if isinstance(model, models.BPE):
        model.save(str(out))


def _values(specs: Iterable[Spec], salt: str, seed: int) -> Iterator[bytes]:
    for spec in specs:
        # Seeded by name, so that a tensor does not depend on other tensors.
        rng = np.random.default_rng([seed, zlib.crc32((salt + spec.name).encode())])
        left = math.prod(spec.shape)
        while left:
            values = rng.standard_normal(min(left, BLOCK_VALUES), np.float32)
            left -= len(values)
            mean, deviation = _distribution(spec)
            values *= np.float32(deviation)
            if mean:
                values += mean
            yield encode(values, spec.dtype)


def _distribution(spec: Spec) -> tuple[int, float]:
    """Mean and standard deviation of a tensor's values."""
    norm = bool(re.search("norm|ln_q|emb_ln", spec.name))
    if norm or spec.name.endswith(".bias"):
        return int(norm), 0.1
    # Linear layers keep a vector's norm. Embeddings of half of it let the layers influence the result, and
    # adapters that add half of it make the vectors of the tasks clearly different.
    if re.search("embed_tokens|_embeddings", spec.name):
        return 0, 0.5
    inputs = spec.shape[-1] if "lora_" in spec.name else math.prod(spec.shape[1:])
    return 0, (0.5 if ".lora_B" in spec.name else 1.0) / math.sqrt(inputs)
