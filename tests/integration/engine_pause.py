"""Pauses the engine of a worker, so that what a test does meanwhile comes before the engine's next step."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.engine_workers import Worker
from tests.fakes.hang_guard import hang_guard
from tests.metrics import parse, value
from tests.processes import command, descendants
from triptych.workers.shared.contract import LIVE_PATH, METRICS_PATH

PREPARED = "triptych_worker_prepare_duration_seconds_count"


def engine_pid(worker: Worker) -> int:
    """The process of the worker's engine."""
    [engine] = [process for process in descendants(worker.pid) if "EngineCore" in command(process)]
    return engine.pid


@contextmanager
def paused(engine: int) -> Iterator[None]:
    """The engine with this process id makes no step inside the block."""
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


async def count(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """A metric of the worker that `client` talks to."""
    return value(parse((await client.get(METRICS_PATH)).text), name, **labels)


async def until_counted(client: httpx.AsyncClient, least: float, name: str, **labels: str) -> None:
    """Wait until a metric of the worker is at least `least`."""
    async with hang_guard():
        while await count(client, name, **labels) < least:
            pass
    # The event loop sends to the engine in the iteration after it counts.
    await client.get(LIVE_PATH)
