"""A batch on its way through the engine: frames come out one by one, in the order of completion."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from workers.chunks import EmptyChunkError
from workers.contract import (
    Document,
    EncodeRequest,
    Failure,
    FailureCode,
    Frame,
    Item,
    Vector,
    encode_frame,
)
from workers.engine import Engine
from workers.images import ImageError
from workers.prompts import Fault, Prompt, TokenLimitError

logger = logging.getLogger(__name__)

_CODES: dict[type[Fault], FailureCode] = {
    TokenLimitError: "token_limit",
    ImageError: "media_invalid",
    EmptyChunkError: "invalid",
}

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
        elif isinstance(prompt, Prompt):
            tasks.append(asyncio.create_task(_encode(engine, index, item, prompt, request.priority, put)))
        else:
            put(Failure(index, _CODES[type(prompt)], str(prompt)))
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
    engine: Engine, index: int, item: Item, prompt: Prompt, priority: int, put: Callable[[Frame], None]
) -> None:
    try:
        encoded = await engine.encode(prompt, priority)
    except Exception as error:
        logger.exception("item %d of a batch failed in the engine", index)
        put(Failure(index, "internal", f"{type(error).__name__}: {error}"))
    else:
        vector, token_ids = encoded.vector, encoded.token_ids
        if isinstance(item.content, Document):
            # The engine gives a single span as one vector.
            vector = vector.reshape(len(item.content.chunks), -1)
        texts = engine.prompter.token_texts(token_ids) if item.tokenized else None
        put(Vector(index, len(token_ids), vector.shape, vector.tobytes(), prompt.cut, texts))
