"""The servers of a run. Benchmarks that follow each other share engines."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from triptych.loadtests.bench.stock import STOCK, stock_copy
from triptych.loadtests.server_processes import Router, Server, StockServer, Worker, free_port
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL

Kind = Literal["worker", "stock", "token-level stock", "emulated"]
Size = Literal["nano", "tiny"]
MAX_TOKENS, STEP_TOKENS, STEP_ITEMS = 4096, 8192, 256
# Of an emulated card: the fixed time of a step, and tokens a second.
CARD_SECONDS, CARD_TOKENS = 0.01, 90_000
ROOT = Path(__file__).resolve().parents[2]
EMULATED = {
    "PYTHONPATH": f"{ROOT / 'tests' / 'fakes' / 'engine'}:{ROOT}",
    "EMULATED_STEP_SECONDS": str(CARD_SECONDS),
    "EMULATED_TOKENS_PER_SECOND": str(CARD_TOKENS),
}
MEAN_POOLER = '{"task": "embed", "seq_pooling_type": "MEAN"}'
LAST_POOLER = '{"task": "embed", "seq_pooling_type": "LAST"}'
TOKEN_POOLER = '{"task": "token_embed", "use_activation": false}'


class Engine(NamedTuple):
    """One vLLM engine: its server and its checkpoint."""

    kind: Kind
    size: Size = "nano"
    pool: PoolName = "retrieval"


class Servers:
    """Starts and stops servers. `folder` holds checkpoints, logs and stock copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._engines: dict[Engine, Server] = {}
        self._others = ExitStack()

    def checkpoint(self, size: Size = "nano", pool: PoolName = "retrieval") -> Path:
        """A merged variant of a generated checkpoint; made if missing."""
        family = BY_POOL[pool]
        folder = self.folder / size / family.key
        if not (folder / family.pools[-1]).exists():
            tool = [sys.executable, "-m", "triptych.workers.checkpoints"]
            flags = ["--model", family.name, *(["--nano"] if size == "nano" else [])]
            if not (folder / "upstream").exists():
                subprocess.run([*tool, "tiny", *flags, str(folder / "upstream")], check=True)
            command = [*tool, "merge", str(folder / "upstream"), str(folder), "--dtype", "float32"]
            subprocess.run(command, check=True)
        return folder / pool

    def start(self, engines: Iterable[Engine]) -> None:
        """Start the missing ones of `engines`, and stop all other servers."""
        self._others.close()
        wanted = set(engines)
        for engine in self._engines.keys() - wanted:
            self._engines.pop(engine).kill()
        missing = sorted(wanted - self._engines.keys())
        for engine in missing:
            self._engines[engine] = self._start(engine)
        for engine in tqdm(missing, desc="starting engines", unit="engine", leave=False):
            self._engines[engine].wait_until_ready()

    def engine(self, kind: Kind, size: Size = "nano", pool: PoolName = "retrieval") -> Server:
        """A running engine."""
        return self._engines[Engine(kind, size, pool)]

    def router(self, *workers: tuple[PoolName, str], **settings: object) -> Server:
        """Start our router in front of workers, given as pool and address. It ends with the benchmark."""
        return self.started(Router(self.log("router"), workers, **settings))

    def stub(self, status: int = 200) -> Server:
        """Start a worker that answers batches with `status` at once."""
        port = free_port()
        argv = ("triptych.loadtests.bench.stub", str(port), str(status))
        return self.started(Server(self.log("stub"), *argv, port=port))

    def vllm_router(self, server: Server) -> Server:
        """Start vLLM's router in Rust (PyPI: vllm-router), otherwise with its defaults."""
        if importlib.util.find_spec("vllm_router") is None:
            raise SystemExit("vllm-router is not installed; run `make dev`")
        port = free_port()
        argv = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        argv += ["--worker-urls", server.url, "--policy", "round_robin", "--log-level", "warning"]
        module = "vllm_router.launch_router"
        return self.started(Server(self.log("vllm-router"), module, *argv, port=port, ready="/health"))

    def started(self, server: Server) -> Server:
        """Wait until `server` is ready; it ends with the benchmark."""
        self._others.callback(server.kill)
        return server.wait_until_ready()

    def log(self, name: str) -> Path:
        """The file for a server's output."""
        return self.folder / f"{name}.log"

    def _start(self, engine: Engine) -> Server:
        checkpoint = self.checkpoint(engine.size, engine.pool)
        log = self.log("-".join(engine).replace(" ", "-"))
        if engine.kind in ("worker", "emulated"):
            environment = EMULATED if engine.kind == "emulated" else {}
            return Worker(log, environment, model=checkpoint, dtype="float32", max_tokens=MAX_TOKENS)
        copy = self.folder / "stock" / engine.size / engine.pool
        family = BY_POOL[engine.pool]
        if not copy.exists():
            stock_copy(checkpoint, copy, STOCK[family])
        own = MEAN_POOLER if family.pooling == "mean" else LAST_POOLER
        pooler = TOKEN_POOLER if engine.kind == "token-level stock" else own
        arguments = ["--dtype", "float32", "--max-model-len", str(MAX_TOKENS), "--pooler-config", pooler]
        return StockServer(log, copy, *arguments, "--max-num-batched-tokens", str(STEP_TOKENS))
