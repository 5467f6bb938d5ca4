"""Encodes a batch through a service, and streams one frame per item in order of completion."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import DEAD, EncodeRequest, Frame, Info, Progress, Vector, encode_frame
from triptych.workers.vllm_engine import Engine, versions
from triptych.workers.worker_metrics import WorkerMetrics

logger = logging.getLogger(__name__)

# Far below the silence after which a router gives up on a worker.
PROGRESS_SECONDS = 1.0

Job = Callable[[], Awaitable[Vector]]
"""Encodes one item. May raise `ItemError`."""


class BatchFailed(Exception):
    """The batch cannot be finished. `state` is a value of `STATE_HEADER`."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


class Service(Protocol):
    """An engine and what it serves: a variant or a cross-encoder.

    `tolerance` is how far rounding may move the vector of an input, relative to its length. `canaries` are
    requests of one item each, by name, that together take every path through the engine.
    """

    engine: Engine
    info: Info
    tolerance: float

    @property
    def canaries(self) -> Mapping[str, EncodeRequest]: ...

    async def jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        """One job, or its error, for each item."""
        ...

    async def warm_up(self) -> None:
        """Encode one input of each kind, so that no client waits for one-time work."""
        ...


def info_of(settings: WorkerSettings, **model: Any) -> Info:
    """`Info` of this process; `model` is what the service knows of its model."""
    instance, batch_tokens = secrets.token_hex(8), settings.batch_tokens
    return Info(instance=instance, batch_tokens=batch_tokens, versions=versions(), **model)


async def encode_batch(
    service: Service,
    request: EncodeRequest,
    metrics: WorkerMetrics,
    failed: Callable[[], None],
    progress_seconds: float = PROGRESS_SECONDS,
) -> AsyncGenerator[tuple[bytes, bool]]:
    """Encode a batch; yields one frame per item, and `Progress` frames while the engine works.

    A chunk is one or more whole frames, and whether more chunks follow.

    An item that fails gets a `Failure` frame and does not affect the others. `failed` is called if it failed
    inside the engine. Closing the generator early aborts the unfinished items.

    Raises `BatchFailed` if the engine dies, instead of sending a `Failure` for each item: the router counts
    one failed replica.
    """
    # The frames of items; None once the engine has died.
    results: asyncio.Queue[bytes | None] = asyncio.Queue()
    tokens, unfinished, steps = 0, len(request.items), service.engine.steps

    def put(frame: Frame) -> None:
        nonlocal tokens, unfinished
        tokens += metrics.ended(frame)
        unfinished -= 1
        results.put_nowait(encode_frame(frame))

    async def run(index: int, job: Job) -> None:
        frame: Frame
        try:
            with metrics.engine.time():
                frame = await job()
        except ItemError as error:
            frame = error.frame(index)
        except Exception as error:
            if service.engine.dead:
                results.put_nowait(None)
                return
            logger.exception("item %d of a batch failed in the engine", index)
            frame = ItemError("internal", f"{type(error).__name__}: {error}").frame(index)
            failed()
        put(frame)

    tasks = []
    metrics.batch_items.observe(len(request.items))
    with metrics.prepare.time():
        jobs = await service.jobs(request)
    for index, job in enumerate(jobs):
        if isinstance(job, ItemError):
            put(job.frame(index))
        else:
            tasks.append(asyncio.create_task(run(index, job)))
    left = len(request.items)
    try:
        while left:
            try:
                async with asyncio.timeout(progress_seconds):
                    ready = [await results.get()]
            except TimeoutError:
                if service.engine.steps > steps:
                    steps = service.engine.steps
                    yield encode_frame(Progress()), True
                continue
            while not results.empty():
                ready.append(results.get_nowait())
            if frames := [frame for frame in ready if frame is not None]:
                left -= len(frames)
                yield b"".join(frames), left > 0
            if None in ready:
                raise BatchFailed(DEAD, "the engine has died")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        metrics.batch_ended(tokens, unfinished)
