"""How much memory an engine on a CPU gains while it meets texts of all lengths, and what bounding that costs.

    python -m loadtests.bench.engine_memory [--texts 400]

oneDNN keeps a compiled kernel for each shape that it has met, 1,024 of them unless told otherwise; a worker
tells it to keep few. Both get the same texts, one at a time, each in an engine of its own.
"""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import httpx
from tqdm import tqdm

from loadtests.bench.report import number, table
from loadtests.bench.servers import Servers
from loadtests.bench.texts import Texts
from loadtests.processes import Worker
from loadtests.scrape import parse
from workers.shared.contract import Failure, Item, Text
from workers.vllm_engine import ONEDNN_CAPACITY, ONEDNN_KERNELS

LONGEST = 900
# What oneDNN keeps by itself; without a word in the environment a worker chooses.
ENGINES = {"1,024 (oneDNN's default)": {ONEDNN_CAPACITY: "1024"}, f"{ONEDNN_KERNELS} (a worker's)": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=400, help="for each engine (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Servers(Path(folder)).checkpoint("tiny")
        draw = random.Random(1)
        made = Texts(checkpoint)
        texts = [made.draw(str(n), 1, draw.randint(1, LONGEST))[0] for n in range(options.texts)]
        [longest] = made.draw("longest", 1, LONGEST)
        rows = [
            (name, *_measured(environment, checkpoint, Path(folder) / "worker.log", longest, texts))
            for name, environment in ENGINES.items()
        ]
    columns = ("kernels kept", "MiB before", "gained, first half", "second half", "texts/s", "failed")
    print("\n".join(table(columns, rows)))


def _measured(
    environment: dict[str, str], checkpoint: Path, log: Path, longest: str, texts: list[str]
) -> tuple[str, ...]:
    os.environ.pop(ONEDNN_CAPACITY, None)
    os.environ.update(environment)
    worker = Worker(log, model=checkpoint, dtype="float32", max_tokens=4096)
    try:
        worker.wait_until_ready()
        worker.encode([Item(Text(longest, "query"))])
        resident = [_resident_mib(worker)]
        failed, began = 0, time.monotonic()
        for half in (texts[: len(texts) // 2], texts[len(texts) // 2 :]):
            for text in tqdm(half, desc="encoding", unit="text", leave=False):
                [frame] = worker.encode([Item(Text(text, "query"))])
                failed += isinstance(frame, Failure)
            resident.append(_resident_mib(worker))
        rate = len(texts) / (time.monotonic() - began)
    finally:
        worker.kill()
    before, middle, after = resident
    return number(before), number(middle - before), number(after - middle), number(rate), str(failed)


def _resident_mib(worker: Worker) -> float:
    """Of the worker and its engine, by the worker's own account."""
    page = parse(httpx.get(worker.url + "/metrics", timeout=30).text)
    [resident] = page["triptych_worker_resident_memory_bytes"].values()
    return resident / 2**20


if __name__ == "__main__":
    main()
