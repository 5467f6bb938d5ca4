"""The servers of a run: our workers and stock vLLM, on one card."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from triptych.loadtests.bench.sections import Scale
from triptych.loadtests.bench.servers import MEAN_POOLER, STEP_TOKENS, TOKEN_POOLER
from triptych.loadtests.bench.stock import stock_copy
from triptych.loadtests.gpu import card
from triptych.loadtests.server_processes import Router, Server, StockServer, Worker
from triptych.workers.shared.contract import POOLS, PoolName
from triptych.workers.shared.parent_death import die_with_parent

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "data" / "upstream-tiny"
STOCK, TOKEN_LEVEL, EAGER, FP8 = "stock", "token-level-stock", "eager", "fp8"
# Workers of the pool `retrieval` with other settings.
VARIED: Mapping[str, Mapping[str, object]] = {EAGER: {"enforce_eager": True}, FP8: {"quantization": "fp8"}}
# A worker on the reference fixture in this dtype.
FIXTURES = {"fixture-float32": "float32", "fixture-bfloat16": "bfloat16"}
# Stock vLLM does not chunk texts that its own pooler averages, so that one step has to hold the longest.
STOCK_TOKENS = STEP_TOKENS
# In front of a card one router process is the limit for short texts.
ROUTER_PROCESSES, CORES_PER_ROUTER = 4, 4


class Size(NamedTuple):
    """A model size, and how much is measured with it.

    `texts` are the connections for each number of tokens, `queries` is the first rate to try.
    """

    flags: tuple[str, ...]
    dtype: str
    max_tokens: int
    kv_cache_gib: float
    texts: Mapping[int, int]
    image: tuple[int, int]
    queries: float
    scale: Scale


SIZES = {
    "full": Size(
        flags=("--full",),
        dtype="bfloat16",
        max_tokens=32_768,
        kv_cache_gib=4,
        texts={20: 512, 128: 256, 512: 128, 4096: 32, 32_768: 8},
        # 768 image tokens, the most.
        image=(896, 672),
        queries=1000,
        # Rounding depends on the batch: values of a unit vector move by some thousandths.
        scale=Scale(rounds=2, seconds=4, quick=False, settle_seconds=0.5, tolerance=0.01),
    ),
    "nano": Size(
        flags=("--nano",),
        dtype="float32",
        max_tokens=1024,
        kv_cache_gib=0.5,
        texts={20: 8, 128: 4, 600: 2},
        image=(112, 84),
        queries=20,
        scale=Scale(rounds=1, seconds=0.3, quick=True),
    ),
}


class Engines:
    """Starts and stops servers. `folder` holds checkpoints and logs."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self._size = folder, size
        self._running: dict[str, Server] = {}
        self._routers = ExitStack()

    def variant(self, pool: PoolName = "retrieval") -> Path:
        """The merged variant of a pool."""
        # A merge locks the parent folder, so each has its own.
        return self.folder / "merged" / pool / pool

    async def write_checkpoints(self) -> None:
        """Write the random checkpoint, and merge it for all pools side by side; keeps what is there."""
        upstream = self.folder / "upstream"
        if not upstream.exists():
            await child("triptych.workers.checkpoints", "tiny", *self._size.flags, str(upstream))
        missing = [pool for pool in POOLS if not self.variant(pool).exists()]
        await asyncio.gather(
            *(merge(upstream, self.variant(pool).parent, pool, self._size.dtype) for pool in missing)
        )

    async def need(self, *names: str) -> list[Server]:
        """Servers by name: a pool, or one of the constants above. Starts missing ones, stops all others.

        All that are missing start together, since each is told the size of its cache.
        """
        await self.write_checkpoints()
        self._routers.close()
        for name in list(self._running):
            if name not in names or self._running[name].poll() is not None:
                self._running.pop(name).kill()
        missing = [name for name in names if name not in self._running]
        if missing:
            print(f"starting engines: {', '.join(missing)}", file=sys.stderr)
        try:
            for name in missing:
                self._running[name] = await self._start(name)
            await asyncio.gather(
                *(asyncio.to_thread(self._running[name].wait_until_ready) for name in missing)
            )
        except BaseException:
            # Also when the section's time is over. The threads end with their processes.
            self.stop()
            raise
        return [self._running[name] for name in names]

    async def router(self, *workers: tuple[PoolName, Server]) -> Router:
        """A router in front of workers; it ends when other servers are needed."""
        processes = max(1, min(ROUTER_PROCESSES, (os.cpu_count() or 1) // CORES_PER_ROUTER))
        targets = [(pool, worker.url) for pool, worker in workers]
        router = Router(self._log("router"), targets, processes=processes)
        self._routers.callback(router.kill)
        await asyncio.to_thread(router.wait_until_ready)
        return router

    def stop(self) -> None:
        """Stop all servers."""
        self._routers.close()
        while self._running:
            self._running.popitem()[1].kill()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    async def _start(self, name: str) -> Server:
        size, log = self._size, self._log(name)
        if name in (STOCK, TOKEN_LEVEL):
            return StockServer(log, await self._stock_copy(), *stock_arguments(size, name))
        if dtype := FIXTURES.get(name):
            model = self.folder / dtype / "retrieval"
            await merge(FIXTURE, model.parent, "retrieval", dtype)
            return Worker(log, model=model, dtype=dtype, kv_cache_gib=size.kv_cache_gib, enforce_eager=True)
        model = self.variant(next((pool for pool in POOLS if pool == name), "retrieval"))
        more = VARIED.get(name, {})
        return Worker(log, model=model, kv_cache_gib=size.kv_cache_gib, max_tokens=size.max_tokens, **more)

    async def _stock_copy(self) -> Path:
        copy = self.folder / "stock"
        if not copy.exists():
            partial = copy.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            await asyncio.to_thread(stock_copy, self.variant(), partial)
            partial.rename(copy)
        return copy


def stock_arguments(size: Size, name: str) -> list[str]:
    """Arguments of a stock server, which otherwise has vLLM's defaults."""
    return [
        *("--dtype", size.dtype, "--max-model-len", str(min(STOCK_TOKENS, size.max_tokens))),
        *("--max-num-batched-tokens", str(STEP_TOKENS)),
        *("--pooler-config", TOKEN_POOLER if name == TOKEN_LEVEL else MEAN_POOLER),
        # Otherwise it starts by encoding the longest video.
        *("--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
        *("--kv-cache-memory-bytes", str(int(size.kv_cache_gib * 2**30))),
        # With a given cache vLLM takes only what it needs, but wants this share of the card to be free.
        *("--gpu-memory-utilization", "0.1"),
        # The last one counts: `StockServer` is eager, as fits a CPU.
        "--no-enforce-eager" if card.name() else "--enforce-eager",
    ]


async def merge(source: Path, out: Path, pool: PoolName, dtype: str) -> None:
    """Merge a pool's variant into `out`; in float32, or as the source has it. Keeps one that is there."""
    wanted = "float32" if dtype == "float32" else "source"
    arguments = ("merge", str(source), str(out), "--pool", pool, "--dtype", wanted)
    await child("triptych.workers.checkpoints", *arguments)


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
