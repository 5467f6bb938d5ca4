"""How much memory a merge takes, against its largest tensor and the whole checkpoint.

    python -m loadtests.bench.merge_memory [--gib 3]

Makes a checkpoint with the real model's shapes (its largest tensor is the real token embedding, 622 MB) and
as many layers as give the size asked for, merges one task of it in a process of its own, and prints that
process's peaks. The base is a hole in the file, so it costs no disk; what the merge writes does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workers.checkpoints import layout
from workers.checkpoints.floats import encode
from workers.checkpoints.tiny import NANO, write_tiny
from workers.checkpoints.writing import ShardWriter, Spec, header, write_index

HIDDEN, INTERMEDIATE, KEYS, VOCABULARY, RANK = 2048, 11008, 256, 151_936, 32
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
LAYERS_PER_SHARD = 8
SAMPLE_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a merge.")
    parser.add_argument("--gib", type=float, default=3.0, help="size of the base weights")
    parser.add_argument("--dtype", choices=("source", "float32"), default="source")
    parser.add_argument("--dir", type=Path, help="where to write (the size asked for, once); default: TMPDIR")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        specs = write_checkpoint(folder / "upstream", int(options.gib * 2**30))
        imports = measure([sys.executable, "-c", "import workers.checkpoints.merge, tqdm"])
        command = [sys.executable, "-m", "workers.checkpoints", "merge", str(folder / "upstream")]
        merge = measure([*command, str(folder / "out"), "--task", "code", "--dtype", options.dtype])
        subprocess.run(
            [sys.executable, "-m", "workers.checkpoints", "verify", str(folder / "out" / "code")], check=True
        )
    largest, total = max(spec.nbytes for spec in specs), sum(spec.nbytes for spec in specs)
    print(f"\ncheckpoint {total / 1e6:,.0f} MB, largest tensor {largest / 1e6:,.0f} MB, to {options.dtype}")
    print(f"read, merged and written in {merge.seconds:.1f} s ({total / 1e6 / merge.seconds:,.0f} MB/s)")
    for title, peak, baseline in [
        ("peak RSS (ru_maxrss)", merge.rss, imports.rss),
        ("peak anonymous memory", merge.anonymous, imports.anonymous),
    ]:
        print(
            f"{title:22} {peak / 1e6:6.0f} MB: {peak / largest:.2f} of the largest tensor, "
            f"{peak / total:.3f} of the checkpoint; of it {baseline / 1e6:.0f} MB are imports"
        )


def write_checkpoint(folder: Path, nbytes: int) -> list[Spec]:
    """An upstream layout of about `nbytes`, its base all zeros. Gives the base's tensors."""
    write_tiny(folder, NANO, 0, progress=lambda title, total: lambda done: None)
    for shard in folder.glob("model-*"):
        shard.unlink()
    layer_values = sum(outputs * inputs for outputs, inputs in SHAPES.values())
    layers = max(1, round((nbytes / 2 - VOCABULARY * HIDDEN) / layer_values))
    shards = {
        "model-0.safetensors": [
            Spec("model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN)),
            Spec(f"{layout.PROJECTOR}.weight", "BF16", (layout.PROJECTOR_DIMENSIONS, HIDDEN)),
            Spec(f"{layout.PROJECTOR}.bias", "BF16", (layout.PROJECTOR_DIMENSIONS,)),
        ]
    }
    for layer in range(layers):
        layer_specs = shards.setdefault(f"model-{1 + layer // LAYERS_PER_SHARD}.safetensors", [])
        layer_specs += [
            Spec(f"model.layers.{layer}.{module}.weight", "BF16", shape) for module, shape in SHAPES.items()
        ]
    for shard_name, specs in shards.items():
        write_hole(folder / shard_name, specs)
    write_index(folder, shards)
    write_adapters(folder / layout.ADAPTER_WEIGHTS, layers)
    config = json.loads((folder / layout.CONFIG).read_text())
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers}
    (folder / layout.CONFIG).write_text(json.dumps(config))
    return [spec for specs in shards.values() for spec in specs]


def write_hole(path: Path, specs: list[Spec]) -> None:
    beginning, size = header(specs)
    path.write_bytes(beginning)
    os.truncate(path, size)


def write_adapters(path: Path, layers: int) -> None:
    shapes = {
        f"layers.{layer}.{module}": shape for layer in range(layers) for module, shape in SHAPES.items()
    }
    shapes[layout.PROJECTOR] = (layout.PROJECTOR_DIMENSIONS, HIDDEN)
    specs = []
    for module, (outputs, inputs) in shapes.items():
        specs.append(Spec(layout.adapter_key(module, "A", "code"), "BF16", (RANK, inputs)))
        specs.append(Spec(layout.adapter_key(module, "B", "code"), "BF16", (outputs, RANK)))
    rng = np.random.default_rng(0)
    with ShardWriter(path, specs) as writer:
        for spec in specs:
            writer.write(encode(rng.standard_normal(spec.shape, np.float32), spec.dtype))


class Peak(NamedTuple):
    """What a process took: its peaks in bytes. RSS is the kernel's own account, anonymous memory, which
    leaves out the pages of files, is sampled."""

    rss: int
    anonymous: int
    seconds: float


def measure(command: list[str]) -> Peak:
    """Run a command to its end."""
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        peak = max(peak, anonymous(process.pid))
        time.sleep(SAMPLE_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return Peak(usage.ru_maxrss * 1024, peak, time.monotonic() - began)


def anonymous(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Anonymous:"))


if __name__ == "__main__":
    main()
