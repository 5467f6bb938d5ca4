"""The servers of a run: started when a benchmark first needs them, ended when no later one does."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from tqdm import tqdm

from loadtests.bench.stock import stock_copy
from loadtests.processes import Router, StockServer, Worker
from workers.shared.contract import POOLS, PoolName

Kind = Literal["worker", "stock", "token-level stock"]
Size = Literal["nano", "tiny"]
MAX_TOKENS, STEP_TOKENS = 4096, 8192


class Engine(NamedTuple):
    """One vLLM engine: what serves it, and which checkpoint."""

    kind: Kind
    size: Size = "nano"
    pool: PoolName = "retrieval"


class Servers:
    """Engines by what they are. `folder` holds the checkpoints, their logs and the stock copies.

    `stock` are further arguments for stock servers.
    """

    def __init__(self, folder: Path, stock: Sequence[str] = ()) -> None:
        self._folder = folder
        self._stock = tuple(stock)
        self._started: dict[Engine, Worker | StockServer] = {}

    def checkpoint(self, size: Size, pool: PoolName = "retrieval") -> Path:
        """The merged variant of a generated checkpoint; made when it is not there."""
        folder = self._folder / size
        if not (folder / POOLS[-1]).exists():
            tool = [sys.executable, "-m", "workers.checkpoints"]
            flags = ["--nano"] if size == "nano" else []
            if not (folder / "upstream").exists():
                subprocess.run([*tool, "tiny", *flags, str(folder / "upstream")], check=True)
            command = [*tool, "merge", str(folder / "upstream"), str(folder), "--dtype", "float32"]
            subprocess.run(command, check=True)
        return folder / pool

    def start(self, engines: Iterable[Engine]) -> None:
        """Have all of `engines` ready, and end those that are not among them."""
        wanted = set(engines)
        for engine in self._started.keys() - wanted:
            self._started.pop(engine).kill()
        missing = sorted(wanted - self._started.keys())
        for engine in missing:
            self._started[engine] = self._start(engine)
        for engine in tqdm(missing, desc="starting engines", unit="engine", leave=False):
            self._started[engine].wait_until_ready()

    def worker(self, size: Size = "nano", pool: PoolName = "retrieval") -> Worker:
        return cast(Worker, self._started[Engine("worker", size, pool)])

    def stock(self, size: Size = "nano", pool: PoolName = "retrieval") -> StockServer:
        return cast(StockServer, self._started[Engine("stock", size, pool)])

    def token_level(self, size: Size = "nano") -> StockServer:
        return cast(StockServer, self._started[Engine("token-level stock", size)])

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def router(self, *workers: tuple[PoolName, str], **settings: object) -> Router:
        """A router of ours in front of workers, given as pool and address; whoever asks ends it."""
        return Router(self.log("router"), workers, **settings).wait_until_ready()

    def stop(self) -> None:
        """End all of them."""
        for process in self._started.values():
            process.kill()
        self._started.clear()

    def _start(self, engine: Engine) -> Worker | StockServer:
        checkpoint = self.checkpoint(engine.size, engine.pool)
        log = self.log("-".join(engine).replace(" ", "-"))
        if engine.kind == "worker":
            return Worker(log, model=checkpoint, dtype="float32", max_tokens=MAX_TOKENS)
        copy = self._folder / "stock" / engine.size / engine.pool
        if not copy.exists():
            stock_copy(checkpoint, copy)
        pooler = '{"task": "embed", "seq_pooling_type": "MEAN"}'
        if engine.kind == "token-level stock":
            pooler = '{"task": "token_embed", "use_activation": false}'
        arguments = ["--dtype", "float32", "--max-model-len", str(MAX_TOKENS), "--pooler-config", pooler]
        return StockServer(log, copy, *arguments, "--max-num-batched-tokens", str(STEP_TOKENS), *self._stock)
