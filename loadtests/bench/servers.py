"""The servers of a run. Benchmarks that follow each other share engines."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, cast

from tqdm import tqdm

from loadtests.bench.stock import stock_copy
from loadtests.processes import Router, StockServer, Worker
from workers.shared.contract import POOLS, PoolName

Kind = Literal["worker", "stock", "stock in one process", "token-level stock"]
Size = Literal["nano", "tiny"]
MAX_TOKENS, STEP_TOKENS = 4096, 8192
# On a CPU vLLM runs the model in a second process, and both spin for a second after each step. With three of
# them, two cores do nothing else: 59 replies/s instead of 454. Our workers run the model in one process too.
ONE_PROCESS = ("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor")


class Engine(NamedTuple):
    """One vLLM engine: its server and its checkpoint."""

    kind: Kind
    size: Size = "nano"
    pool: PoolName = "retrieval"


class Servers:
    """Starts and stops engines. `folder` holds checkpoints, logs and stock copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[Engine, Worker | StockServer] = {}

    def checkpoint(self, size: Size, pool: PoolName = "retrieval") -> Path:
        """A merged variant of a generated checkpoint; made if missing."""
        folder = self.folder / size
        if not (folder / POOLS[-1]).exists():
            tool = [sys.executable, "-m", "workers.checkpoints"]
            flags = ["--nano"] if size == "nano" else []
            if not (folder / "upstream").exists():
                subprocess.run([*tool, "tiny", *flags, str(folder / "upstream")], check=True)
            command = [*tool, "merge", str(folder / "upstream"), str(folder), "--dtype", "float32"]
            subprocess.run(command, check=True)
        return folder / pool

    def start(self, engines: Iterable[Engine]) -> None:
        """Start the missing ones of `engines`, and stop all others."""
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

    def stock(
        self, size: Size = "nano", pool: PoolName = "retrieval", *, one_process: bool = False
    ) -> StockServer:
        kind: Kind = "stock in one process" if one_process else "stock"
        return cast(StockServer, self._started[Engine(kind, size, pool)])

    def token_level(self, size: Size = "nano") -> StockServer:
        return cast(StockServer, self._started[Engine("token-level stock", size)])

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def router(self, *workers: tuple[PoolName, str], **settings: object) -> Router:
        """Start our router in front of workers, given as pool and address. The caller stops it."""
        return Router(self.log("router"), workers, **settings).wait_until_ready()

    def stop(self) -> None:
        for process in self._started.values():
            process.kill()
        self._started.clear()

    def _start(self, engine: Engine) -> Worker | StockServer:
        checkpoint = self.checkpoint(engine.size, engine.pool)
        log = self.log("-".join(engine).replace(" ", "-"))
        if engine.kind == "worker":
            return Worker(log, model=checkpoint, dtype="float32", max_tokens=MAX_TOKENS)
        copy = self.folder / "stock" / engine.size / engine.pool
        if not copy.exists():
            stock_copy(checkpoint, copy)
        pooler = '{"task": "embed", "seq_pooling_type": "MEAN"}'
        if engine.kind == "token-level stock":
            pooler = '{"task": "token_embed", "use_activation": false}'
        arguments = ["--dtype", "float32", "--max-model-len", str(MAX_TOKENS), "--pooler-config", pooler]
        arguments += ONE_PROCESS if engine.kind == "stock in one process" else ()
        return StockServer(log, copy, *arguments, "--max-num-batched-tokens", str(STEP_TOKENS))
