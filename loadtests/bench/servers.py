"""The servers of a run, on this machine or its card. Benchmarks that follow each other share engines."""

import asyncio
import importlib.util
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from triptych.loadtests.bench import card
from triptych.loadtests.bench.stock import STOCK, stock_copy
from triptych.loadtests.bench.texts import Lists, texts_of
from triptych.loadtests.server_processes import (
    ENGINE_ENVIRONMENT,
    LOOPBACK,
    Router,
    Server,
    StockServer,
    Worker,
    free_port,
)
from triptych.workers.shared.contract import READY_PATH, PoolName
from triptych.workers.shared.families import BY_POOL, V4
from triptych.workers.shared.parent_death import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = "triptych.workers.checkpoints"
FIXTURE = ROOT / "tests" / "data" / "upstream-tiny"
STEP_TOKENS, STEP_ITEMS = 8192, 256
# Of an emulated card: the fixed time of a step, and tokens a second.
CARD_SECONDS, CARD_TOKENS = 0.01, 90_000
EMULATED = {
    "PYTHONPATH": f"{ROOT / 'tests' / 'fakes' / 'engine'}:{ROOT}",
    "EMULATED_STEP_SECONDS": str(CARD_SECONDS),
    "EMULATED_TOKENS_PER_SECOND": str(CARD_TOKENS),
}
POOLERS = {
    "mean": '{"task": "embed", "seq_pooling_type": "MEAN"}',
    "last": '{"task": "embed", "seq_pooling_type": "LAST"}',
    "token": '{"task": "token_embed", "use_activation": false}',
}


class Size(NamedTuple):
    """Checkpoints of one size, random by `flags` or from the reference fixture, and their engines."""

    dtype: str
    flags: tuple[str, ...] | None = None
    max_tokens: int = 4096
    kv_cache_gib: float = 1.0


SizeName = Literal["nano", "tiny", "full", "fixture-float32", "fixture-bfloat16"]
SIZES: dict[SizeName, Size] = {
    "nano": Size("float32", ("--nano",)),
    "tiny": Size("float32", ()),
    "full": Size("bfloat16", ("--full",), max_tokens=32_768, kv_cache_gib=4),
    "fixture-float32": Size("float32"),
    "fixture-bfloat16": Size("bfloat16"),
}


class Engine(NamedTuple):
    """One vLLM engine: its server, its checkpoint, and a setting of a worker that is not the default."""

    kind: Literal["worker", "emulated", "stock", "token-level stock"] = "worker"
    size: SizeName = "nano"
    pool: PoolName = "retrieval"
    setting: tuple[str, object] | None = None

    @property
    def name(self) -> str:
        """For its log."""
        words = (self.kind.replace(" ", "-"), self.size, self.pool, *(self.setting or ()))
        return "-".join(map(str, words))


class Servers:
    """Starts and stops servers. `folder` holds checkpoints, logs and stock copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._engines: dict[Engine, Server] = {}
        self._others = ExitStack()
        self._writing = asyncio.Lock()

    async def variant(self, size: SizeName = "nano", pool: PoolName = "retrieval") -> Path:
        """A merged variant of a checkpoint; written if missing."""
        family, kind = BY_POOL[pool], SIZES[size]
        upstream = FIXTURE
        if kind.flags is not None:
            upstream = self.folder / size / "upstream" / family.name
            async with self._writing:
                if not upstream.exists():
                    await child(CHECKPOINTS, "tiny", "--model", family.name, *kind.flags, str(upstream))
        # A merge locks the parent folder, so each has its own.
        merged = self.folder / size / "merged" / pool
        if not (merged / pool).exists():
            dtype = "float32" if kind.dtype == "float32" else "source"
            await child(CHECKPOINTS, "merge", str(upstream), str(merged), "--pool", pool, "--dtype", dtype)
        return merged / pool

    async def texts(self, size: SizeName = "nano", pool: PoolName = "retrieval") -> Lists:
        """Texts in the tokens of a variant."""
        return texts_of(await self.variant(size, pool))

    async def need(self, *engines: Engine) -> list[Server]:
        """Servers of `engines`. Starts the missing ones together, and stops all other servers."""
        self._others.close()
        for engine, server in list(self._engines.items()):
            if engine not in engines or server.poll() is not None:
                self._engines.pop(engine).kill()
        missing = [engine for engine in engines if engine not in self._engines]
        if missing:
            print(f"starting {', '.join(engine.name for engine in missing)}", file=sys.stderr)
        try:
            for engine in missing:
                self._engines[engine] = await self._start(engine)
            started = (self._engines[engine].wait_until_ready for engine in missing)
            await asyncio.gather(*map(asyncio.to_thread, started))
        except BaseException:
            # Also when the section's time is over. The threads end with their processes.
            self.stop()
            raise
        return [self._engines[engine] for engine in engines]

    async def router(self, *workers: tuple[PoolName, Server], **settings: object) -> Server:
        """Start our router in front of workers. Like all that follow, it ends when engines are needed."""
        addresses = [(pool, worker.url) for pool, worker in workers]
        return await self._started(Router(self.log("router"), addresses, **settings))

    async def stub(self, status: int = 200) -> Server:
        """Start a worker that answers batches with `status` at once."""
        return await self.program("stub", "triptych.loadtests.bench.stub", str(status))

    async def vllm_router(self, server: Server) -> Server:
        """Start vLLM's router in Rust (PyPI: vllm-router), otherwise with its defaults."""
        if importlib.util.find_spec("vllm_router") is None:
            raise RuntimeError("vllm-router is not installed; run `make dev`")
        argv = ["--host", LOOPBACK, "--prometheus-port", str(free_port()), "--worker-urls", server.url]
        argv += ["--policy", "round_robin", "--log-level", "warning", "--port"]
        return await self.program("vllm-router", "vllm_router.launch_router", *argv, ready="/health")

    async def own_code(self, variant: Path) -> Server:
        """Start the model's own code."""
        return await self.program("own-code", "triptych.loadtests.bench.own_code", str(variant))

    async def program(
        self,
        name: str,
        *argv: str,
        python: str | Path = sys.executable,
        ready: str = READY_PATH,
        **environment: str,
    ) -> Server:
        """Start `python -m ARGV PORT`, with one thread for each engine."""
        port, own = free_port(), {**ENGINE_ENVIRONMENT, "HF_HUB_OFFLINE": "1", **environment}
        argv = (*argv, str(port))
        server = Server(self.log(name), *argv, port=port, environment=own, ready=ready, python=python)
        return await self._started(server)

    async def _started(self, server: Server) -> Server:
        """Wait until `server` is ready."""
        self._others.callback(server.kill)
        try:
            return await asyncio.to_thread(server.wait_until_ready)
        except BaseException:
            # Also when the section's time is over: the thread ends with its process.
            server.kill()
            raise

    def stop(self) -> None:
        """Stop all servers."""
        self._others.close()
        while self._engines:
            self._engines.popitem()[1].kill()

    def log(self, name: str) -> Path:
        """The file for a server's output."""
        return self.folder / f"{name}.log"

    async def _start(self, engine: Engine) -> Server:
        size, family, log = SIZES[engine.size], BY_POOL[engine.pool], self.log(engine.name)
        variant = await self.variant(engine.size, engine.pool)
        if engine.kind in ("worker", "emulated"):
            settings = {"dtype": size.dtype, "max_tokens": size.max_tokens}
            if card.name():
                settings["kv_cache_gib"] = size.kv_cache_gib
            settings |= dict([engine.setting] if engine.setting else [])
            return Worker(log, EMULATED if engine.kind == "emulated" else {}, model=variant, **settings)
        copy = self.folder / engine.size / "stock" / engine.pool
        if not copy.exists():
            partial = copy.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            await asyncio.to_thread(stock_copy, variant, partial, STOCK[family])
            partial.rename(copy)
        # Stock vLLM does not chunk texts that its own pooler averages: one step has to hold the longest.
        arguments = ["--dtype", size.dtype, "--max-model-len", str(min(STEP_TOKENS, size.max_tokens))]
        pooler = POOLERS[family.pooling if engine.kind == "stock" else "token"]
        arguments += ["--pooler-config", pooler, "--max-num-batched-tokens", str(STEP_TOKENS)]
        if card.name():
            # With a given cache vLLM takes only what it needs, but wants this share of the card to be free.
            arguments += ["--kv-cache-memory-bytes", str(int(size.kv_cache_gib * 2**30))]
            # The last flag counts: `StockServer` is eager, as fits a CPU.
            arguments += ["--gpu-memory-utilization", "0.1", "--no-enforce-eager"]
            if family is V4:
                # Otherwise a model with images starts by encoding the longest video.
                arguments += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}']
        return StockServer(log, copy, *arguments)


async def child(*argv: str) -> str:
    """The output of `python -m argv`. Raises `RuntimeError` with the end of its errors if it fails."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *argv, stdout=pipe, stderr=pipe, preexec_fn=die_with_parent
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
    return output.decode()
