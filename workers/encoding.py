"""A batch on its way through the engine: frames come out one by one, in the order of completion."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple, Protocol

from workers.metrics import WorkerMetrics
from workers.shared.contract import EncodeRequest, Failure, Frame, Info, Progress, encode_frame

logger = logging.getLogger(__name__)

# Far below the silence after which a router gives a worker up.
PROGRESS_SECONDS = 1.0

Job = Callable[[], Awaitable[Frame]]
"""What is left to do for one item."""


class Chunk(NamedTuple):
    """One or more whole frames, as bytes; and whether more chunks come."""

    data: bytes
    more: bool


class EngineDied(Exception):
    """The engine ended before the batch did; what has no frame by then gets none."""


class Service(Protocol):
    """What a worker serves: a vLLM engine and what is done with it."""

    info: Info
    tolerance: float
    """How far a vector may be from an earlier one of the same input, relative to its length: rounding."""

    @property
    def dead(self) -> bool:
        """True once the engine process has failed; it does not come back."""
        ...

    @property
    def busy(self) -> bool:
        """True while the engine has requests."""
        ...

    @property
    def steps(self) -> int:
        """Steps that the engine has made; they stand still when it has no work, or hangs."""
        ...

    @property
    def canaries(self) -> dict[str, EncodeRequest]:
        """Requests of one item each, by name, that together use every way through the engine."""
        ...

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        """One job for each item of a batch, or what is wrong with the item."""
        ...

    async def warm_up(self) -> None:
        """Encode one of everything that is offered, so that no client is the first."""
        ...

    def shutdown(self) -> None:
        """Stop the engine's processes; the service is of no use after that."""
        ...


async def encode_batch(
    service: Service, request: EncodeRequest, metrics: WorkerMetrics, failed: Callable[[], None]
) -> AsyncGenerator[Chunk]:
    """Encode a batch; yields one frame per item in all, and `Progress` while the engine works on them.

    An item that fails gets its own frame and its neighbours are not touched. `failed` is called for one that
    fails inside the engine. Closing the iterator early aborts what the engine has not finished.

    Raises `EngineDied`: then the items have not failed, the replica has, and the router is to see one failure
    and not as many as there are items.
    """
    ready: list[bytes] = []
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()
    tokens = 0
    steps = service.steps
    died = False

    def put(frame: Frame) -> None:
        nonlocal tokens
        tokens += metrics.ended(frame)
        ready.append(encode_frame(frame))
        wake.set()

    async def run(index: int, job: Job) -> None:
        nonlocal died
        try:
            with metrics.engine.time():
                frame = await job()
        except Exception as error:
            if service.dead:
                died = True
                wake.set()
                return
            logger.exception("item %d of a batch failed in the engine", index)
            frame = Failure(index, "internal", f"{type(error).__name__}: {error}")
            failed()
        put(frame)

    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal timer
        timer = loop.call_later(PROGRESS_SECONDS, tick)
        wake.set()

    tasks = []
    metrics.accepted(len(request.items))
    with metrics.prepare.time():
        jobs = await service.jobs(request)
    for index, job in enumerate(jobs):
        if isinstance(job, Failure):
            put(job)
        else:
            tasks.append(asyncio.create_task(run(index, job)))
    left = len(request.items)
    timer = loop.call_later(PROGRESS_SECONDS, tick)
    try:
        while left:
            await wake.wait()
            wake.clear()
            if ready:
                left -= len(ready)
                chunk = Chunk(b"".join(ready), left > 0)
                ready.clear()
                yield chunk
            elif service.steps > steps:
                steps = service.steps
                yield Chunk(encode_frame(Progress(steps)), True)
            if died:
                raise EngineDied
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        metrics.batch_ended(tokens, left - len(ready))
