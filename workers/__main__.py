"""`triptych worker`: serves one engine on one port, until SIGTERM."""

import asyncio
import gc
import logging
import math
import os
import sys
from types import FrameType
from typing import cast

import uvicorn
import uvloop

from triptych.workers.asgi import WorkerApp
from triptych.workers.canary import Drift
from triptych.workers.checkpoints.hub import FetchError, resolve_folder
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.variant import Variant, read_variant
from triptych.workers.cross_encoder import CrossEncoder
from triptych.workers.embedding import Embedder, load_embedder
from triptych.workers.prompt_reader import PromptReader
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared import logs
from triptych.workers.shared.collector import freeze
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL
from triptych.workers.shared.host_ports import address_of, why_taken
from triptych.workers.shared.strict_settings import SettingsError, read_settings
from triptych.workers.vllm_engine import StartError
from triptych.workers.watchdog import Watchdog
from triptych.workers.window_reader import WindowReader

# How long a worker that is out of service stays up, so that its metrics can be read.
OUT_OF_SERVICE_SECONDS = 30.0

logger = logging.getLogger("triptych.workers")


class Server(uvicorn.Server):
    """uvicorn; tells the app when it is asked to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own raises the signal again at the end, which would kill the process before the engine is
        # shut down.
        cast(WorkerApp, self.config.app).draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


def main() -> int:
    """Serve until stopped. Exit code: 0 asked to stop, 78 wrong setting or checkpoint, 1 another failure."""
    try:
        settings = read_settings(WorkerSettings)
        # The port is opened when the engine has started, which takes minutes.
        if reason := why_taken(settings.host, settings.port):
            raise SettingsError(
                f"cannot listen on {settings.host}:{settings.port} ({reason}): "
                "change WORKER_HOST or WORKER_PORT"
            )
        logs.configure(settings.log_format, "info")
        logs.configure_engine(settings.log_format)
        service = load(settings)
    except (SettingsError, CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, FetchError) else os.EX_CONFIG
    except StartError as error:
        # Without a traceback, so that the engine's own error is among the last lines.
        logger.critical(
            "the engine cannot start: %s. Settings for its memory are WORKER_KV_CACHE_GIB, "
            "WORKER_GPU_MEMORY_UTILIZATION and WORKER_MAX_TOKENS",
            error,
        )
        return 1
    try:
        return uvloop.run(serve(service, settings))
    finally:
        service.engine.shutdown()


def load(settings: WorkerSettings) -> Embedder | CrossEncoder:
    """Start the engine of the configured model.

    Raises `CheckpointError`, `SettingsError`, `OSError` or `StartError`.
    """
    folder = resolve_folder(settings.model, settings.revision)
    if settings.task and BY_POOL[settings.task].any_name:
        logger.info("loading the cross-encoder from %s", folder)
        return CrossEncoder(WindowReader(folder, settings.task, settings), settings)
    variant = read_variant(folder)
    task = pool_of(variant, settings)
    logger.info("loading %s from %s", task, folder)
    if variant.family.cross_encoder:
        # The bounds of the settings depend on the pool.
        settings = read_settings(WorkerSettings, **(settings.model_dump() | {"task": task}))
        return CrossEncoder(PromptReader(variant, task, settings), settings)
    return load_embedder(variant, task, settings)


def pool_of(variant: Variant, settings: WorkerSettings) -> PoolName:
    """The worker's pool. Raises `CheckpointError` if neither says it, or if folder and setting do not fit."""
    task = variant.task or settings.task
    pools = ", ".join(variant.family.pools)
    if task is None:
        raise CheckpointError(
            f"{variant.path} does not say which pool it was merged for; set WORKER_TASK to one of {pools}"
        )
    if settings.task not in (None, task):
        raise CheckpointError(
            f"{variant.path} was merged for {task}, WORKER_TASK says {settings.task}: "
            "its vectors would be wrong for that pool. Set WORKER_MODEL to the folder of the right variant."
        )
    # Without `variant.json` it is merged.
    if variant.task is None and task not in variant.family.pools:
        raise CheckpointError(
            f"{variant.path} is a merged checkpoint of {variant.family.name}, which cannot serve the pool "
            f"{task}; set WORKER_TASK to one of {pools}"
        )
    return task


async def serve(service: Embedder | CrossEncoder, settings: WorkerSettings) -> int:
    """Warm up, then serve until SIGTERM or until the engine fails. Returns the exit code."""
    await service.warm_up()
    app = WorkerApp(service, settings.max_waiting_items, settings.token)
    try:
        await app.canaries.learn()
    except Drift as error:
        logger.critical("the engine returns different vectors for the same input: %s", error)
        return 1
    if not service.engine.steps:
        logger.critical("vLLM has not loaded the plugin `triptych`; install this project beside it again")
        return 1
    freeze()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = Server(config)
    watchdog = Watchdog(service.engine, settings.stall_seconds)
    watchdog.start(asyncio.get_running_loop())
    stopping = asyncio.gather(_stop_when_dead(service, server), _stop_when_wrong(app, server))
    logger.info("ready on http://%s", address_of(settings.host, settings.port))
    await server.serve()
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    watchdog.close()
    await app.close()
    # Frozen objects would still exist at exit, where libraries report each as a leak.
    gc.unfreeze()
    return 1 if service.engine.dead or app.canaries.failure else 0


async def _stop_when_dead(service: Embedder | CrossEncoder, server: uvicorn.Server) -> None:
    while not service.engine.dead:  # noqa: ASYNC110 (vLLM offers only a property)
        await asyncio.sleep(0.5)
    logger.error("the engine has died; ending this worker")
    server.should_exit = True


async def _stop_when_wrong(app: WorkerApp, server: uvicorn.Server) -> None:
    await app.canaries.watch()
    if app.canaries.failure:
        await asyncio.sleep(OUT_OF_SERVICE_SECONDS)
        server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
