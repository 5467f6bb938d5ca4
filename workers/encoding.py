"""A batch on its way through the engine: frames come out one by one, in the order of completion."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from workers.contract import EncodeRequest, Failure, Frame, Vector, encode_frame
from workers.engine import Engine
from workers.images import ImageError
from workers.prompts import Prompt, TokenLimitError

logger = logging.getLogger(__name__)

_UNSUPPORTED = "this checkpoint has no multi_vector_projector (official -vllm- folders ship none)"


async def encode_batch(engine: Engine, request: EncodeRequest) -> AsyncGenerator[bytes]:
    """Encode a batch; yields one or more whole frames at a time, one frame per item in all.

    An item that fails gets its own frame and its neighbours are not touched. Closing the iterator
    early aborts what the engine has not finished.
    """
    ready: list[bytes] = []
    wake = asyncio.Event()

    def put(frame: Frame) -> None:
        ready.append(encode_frame(frame))
        wake.set()

    prompts = await engine.prompter.prompts(request.items)
    tasks = []
    for index, (item, prompt) in enumerate(zip(request.items, prompts, strict=True)):
        if isinstance(prompt, Prompt) and item.multivector and engine.info.multivector_dimensions is None:
            put(Failure(index, "unsupported", _UNSUPPORTED))
        elif isinstance(prompt, TokenLimitError):
            put(Failure(index, "token_limit", str(prompt)))
        elif isinstance(prompt, ImageError):
            put(Failure(index, "media_invalid", str(prompt)))
        else:
            tasks.append(asyncio.create_task(_encode(engine, index, prompt, request.priority, put)))
    try:
        left = len(request.items)
        while left:
            await wake.wait()
            wake.clear()
            left -= len(ready)
            chunk = b"".join(ready)
            ready.clear()
            yield chunk
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _encode(
    engine: Engine, index: int, prompt: Prompt, priority: int, put: Callable[[Frame], None]
) -> None:
    try:
        encoded = await engine.encode(prompt, priority)
    except Exception as error:
        logger.exception("item %d of a batch failed in the engine", index)
        put(Failure(index, "internal", f"{type(error).__name__}: {error}"))
    else:
        vector = encoded.vector
        put(Vector(index, encoded.tokens, vector.shape, vector.tobytes()))
