"""A batch on its way through the engine: frames come out one by one, in the order of completion."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple, Protocol

from workers.contract import EncodeRequest, Failure, Frame, Info, Vector, encode_frame
from workers.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

Job = Callable[[], Awaitable[Frame]]
"""What is left to do for one item."""


class Chunk(NamedTuple):
    """One or more whole frames, as bytes; whether any is a vector, and whether more chunks come."""

    data: bytes
    vectors: bool
    more: bool


class EngineDied(Exception):
    """The engine ended before the batch did; what has no frame by then gets none."""


class Service(Protocol):
    """What a worker serves: a vLLM engine and what is done with it."""

    info: Info

    @property
    def dead(self) -> bool:
        """True once the engine process has failed; it does not come back."""
        ...

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        """One job for each item of a batch, or what is wrong with the item."""
        ...

    async def probe(self) -> None:
        """Really encode something short. Raises whatever is wrong."""
        ...

    async def warm_up(self) -> None:
        """Encode one of everything that is offered, so that no client is the first."""
        ...

    def shutdown(self) -> None:
        """Stop the engine's processes; the service is of no use after that."""
        ...


async def encode_batch(
    service: Service, request: EncodeRequest, metrics: WorkerMetrics
) -> AsyncGenerator[Chunk]:
    """Encode a batch; yields one frame per item in all.

    An item that fails gets its own frame and its neighbours are not touched. Closing the iterator
    early aborts what the engine has not finished. Raises `EngineDied`: then the items have not failed, the
    replica has, and the router is to see one failure and not as many as there are items.
    """
    ready: list[bytes] = []
    wake = asyncio.Event()
    tokens = 0
    vectors = died = False

    def put(frame: Frame) -> None:
        nonlocal tokens, vectors
        vectors = vectors or isinstance(frame, Vector)
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
        put(frame)

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
    try:
        while left:
            await wake.wait()
            wake.clear()
            if ready:
                left -= len(ready)
                chunk = Chunk(b"".join(ready), vectors, left > 0)
                ready.clear()
                vectors = False
                yield chunk
            if died:
                raise EngineDied
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        metrics.batch_ended(tokens, left - len(ready))
