"""`python -m workers`: one engine behind one port, until SIGTERM."""

import asyncio
import gc
import logging
import math
import os
import sys
from types import FrameType

import uvicorn
import uvloop

from workers.app import WorkerApp
from workers.canary import Drift
from workers.checkpoints.variant import CheckpointError, Variant, read_variant
from workers.cross_encoder import CrossEncoder
from workers.embedding import Embedder
from workers.encoding import Service
from workers.engine import Engine, resolve_folder
from workers.settings import WorkerSettings
from workers.shared import logs
from workers.shared.contract import PoolName
from workers.shared.strict_settings import SettingsError, read_settings
from workers.watchdog import Watchdog

# Time from out of service to exit, so that metrics can be read.
OUT_OF_SERVICE_SECONDS = 30.0

logger = logging.getLogger("workers")


class Server(uvicorn.Server):
    """uvicorn, telling the application when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, app: WorkerApp) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal once more when all is done, and the process would
        # die of it before the engine is shut down.
        self._app.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


def main() -> int:
    """Run until stopped; 0 when asked to stop, 78 for a setting to mend, 1 when the engine died."""
    try:
        settings = read_settings(WorkerSettings)
        logs.configure(settings.log_format, "info")
        logs.configure_engine(settings.log_format)
        service = load(settings)
    except (SettingsError, CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    try:
        return uvloop.run(serve(service, settings))
    finally:
        service.shutdown()


def load(settings: WorkerSettings) -> Service:
    """Start the engine that the settings ask for.

    Raises `CheckpointError` or `OSError` when the model cannot be served as asked.
    """
    folder = resolve_folder(settings.model, settings.revision)
    if settings.task == "rerank":
        logger.info("loading the cross-encoder in %s", folder)
        return CrossEncoder(folder, settings)
    variant = read_variant(folder)
    task = pool_of(variant, settings)
    logger.info("loading the %s variant from %s", task, folder)
    return Embedder(Engine(variant, task, settings))


def pool_of(variant: Variant, settings: WorkerSettings) -> PoolName:
    """The pool this worker belongs to. Raises `CheckpointError` when folder and setting disagree."""
    if variant.task is None and settings.task is None:
        raise CheckpointError(
            f"{variant.path} does not say which task it was merged for; "
            "set WORKER_TASK to retrieval, text-matching or code"
        )
    if variant.task is not None and settings.task not in (None, variant.task):
        raise CheckpointError(
            f"{variant.path} was merged for {variant.task}, WORKER_TASK says {settings.task}: "
            "its vectors would be wrong for that pool. Give the folder of the right variant."
        )
    task = variant.task or settings.task
    assert task is not None
    return task


async def serve(service: Service, settings: WorkerSettings) -> int:
    """Warm the service up, then answer until SIGTERM or until the engine dies; the exit code."""
    await service.warm_up()
    app = WorkerApp(service, settings.max_waiting_items, settings.token)
    try:
        await app.canaries.learn()
    except Drift as error:
        logger.critical("the engine gives different vectors for one input, so it must not serve: %s", error)
        return 1
    if not service.steps:
        logger.critical("vLLM has not loaded the plugin `triptych`; install this project beside it again")
        return 1
    # What vLLM and torch have made by now stays; looking through all of it again and again would hold up
    # every request for a third of a second.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = Server(config, app)
    watchdog = Watchdog(service, settings.stall_seconds)
    watchdog.start(asyncio.get_running_loop())
    tasks = [
        asyncio.create_task(_stop_when_dead(service, server)),
        asyncio.create_task(_stop_when_wrong(app, server)),
    ]
    logger.info("ready on http://%s:%d", settings.host, settings.port)
    await server.serve()
    for task in tasks:
        task.cancel()
    watchdog.close()
    await app.close()
    # Else what libraries look for at the end is still there, and they write a hundred lines of leaks.
    gc.unfreeze()
    return 1 if service.dead or app.canaries.failure else 0


async def _stop_when_dead(service: Service, server: uvicorn.Server) -> None:
    while not service.dead:  # noqa: ASYNC110 (vLLM says it by a property alone)
        await asyncio.sleep(0.5)
    logger.error("the engine has died; this worker ends, to be started again")
    server.should_exit = True


async def _stop_when_wrong(app: WorkerApp, server: uvicorn.Server) -> None:
    await app.canaries.watch()
    if app.canaries.failure:
        await asyncio.sleep(OUT_OF_SERVICE_SECONDS)
        server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
