"""What a worker of a merged variant does with a batch: vectors, multi-vectors, late-interaction scores."""

import asyncio
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from workers.chunks import EmptyChunkError
from workers.encoding import Job
from workers.engine import Encoded, Engine
from workers.images import ImageError, striped_png
from workers.prompts import Fault, Prompt, PromptError, TokenLimitError
from workers.shared.contract import (
    Document,
    EncodeRequest,
    Failure,
    FailureCode,
    Frame,
    Image,
    Item,
    Text,
    Vector,
)

_NO_PROJECTOR = "this checkpoint has no multi_vector_projector (official -vllm- folders ship none)"
_CODES: dict[type[Fault], FailureCode] = {
    TokenLimitError: "token_limit",
    EmptyChunkError: "invalid",
    PromptError: "internal",
}
_SHORT = Text("probe", "query")
_WORDS = "the lighthouse keeper wrote down each ship that passed and the colour of the evening sea "
_WARM_UP_TEXTS = 32
# As many products take a few milliseconds, which the event loop can spare.
_PRODUCTS_ON_THE_LOOP = 1 << 18
# 64 MiB; all products of two texts of 32,768 tokens would be 4 GiB.
_PRODUCTS_AT_ONCE = 1 << 24


class Embedder:
    """The service of a merged variant (`workers.encoding.Service`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.info = engine.info
        self.tolerance = engine.tolerance

    @cached_property
    def canaries(self) -> dict[str, EncodeRequest]:
        # More words than one step takes tokens, so that it is read in chunks.
        long = _WORDS * (1 + self.info.batch_tokens // len(_WORDS.split()))
        contents: dict[str, Text | Image] = {
            "short text": _SHORT,
            "long text": Text(long, "passage"),
            "image": Image(striped_png()),
        }
        return {name: EncodeRequest([Item(content, truncate=True)]) for name, content in contents.items()}

    @property
    def dead(self) -> bool:
        return self._engine.dead

    @property
    def busy(self) -> bool:
        return self._engine.busy

    @property
    def steps(self) -> int:
        return self._engine.steps

    def shutdown(self) -> None:
        self._engine.shutdown()

    async def warm_up(self) -> None:
        await self._encode_one(Item(_SHORT))
        # Together, as the texts of a batch are.
        await asyncio.gather(*(self._encode_one(Item(_SHORT)) for _ in range(_WARM_UP_TEXTS)))
        if self.info.multivector_dimensions is not None:
            await self._encode_one(Item(_SHORT, multivector=True))

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        # A query that is too long is cut: what a document is asked for stands at its beginning.
        queries = [Item(query, multivector=True, truncate=True) for query in request.queries]
        prompts = await self._engine.prompter.prompts([*request.items, *queries])
        shared = [
            _Query(self._engine, prompt, request.priority) if isinstance(prompt, Prompt) else prompt
            for prompt in prompts[len(request.items) :]
        ]
        return [
            self._job(index, item, prompt, request.priority, shared)
            for index, (item, prompt) in enumerate(zip(request.items, prompts, strict=False))
        ]

    def _job(
        self,
        index: int,
        item: Item,
        prompt: Prompt | Fault,
        priority: int,
        queries: Sequence["_Query | Fault"],
    ) -> Job | Failure:
        if not isinstance(prompt, Prompt):
            return Failure(index, _CODES[type(prompt)], str(prompt))
        if prompt.pooling.multivector and self.info.multivector_dimensions is None:
            return Failure(index, "unsupported", _NO_PROJECTOR)
        if item.against is None:
            return lambda: self._vector(index, item, prompt, priority)
        query = queries[item.against]
        if not isinstance(query, _Query):
            return Failure(index, _CODES[type(query)], f"the query: {query}")
        return lambda: self._score(index, query, prompt, priority)

    async def _vector(self, index: int, item: Item, prompt: Prompt, priority: int) -> Frame:
        try:
            encoded = await self._engine.encode(prompt, priority)
        except ImageError as error:
            return Failure(index, "media_invalid", str(error))
        vector, token_ids = encoded.vector, encoded.token_ids
        if isinstance(item.content, Document):
            # The engine gives a single span as one vector.
            vector = vector.reshape(len(item.content.chunks), -1)
        texts = self._engine.prompter.token_texts(token_ids) if item.tokenized else None
        return Vector(index, len(token_ids), vector.shape, vector.tobytes(), prompt.cut, texts)

    async def _score(self, index: int, query: "_Query", prompt: Prompt, priority: int) -> Frame:
        try:
            asked, found = await asyncio.gather(query.encoded(), self._engine.encode(prompt, priority))
        except ImageError as error:
            return Failure(index, "media_invalid", str(error))
        score = await max_sim(asked.vector, found.vector)
        return Vector(
            index,
            len(found.token_ids),
            (1,),
            np.float32(score).tobytes(),
            prompt.cut,
            query_tokens=len(asked.token_ids),
        )

    async def _encode_one(self, item: Item) -> None:
        [prompt] = await self._engine.prompter.prompts([item])
        if not isinstance(prompt, Prompt):
            raise prompt
        await self._engine.encode(prompt)


class _Query:
    """A query that several items of a batch are held against: encoded when the first of them asks."""

    def __init__(self, engine: Engine, prompt: Prompt, priority: int) -> None:
        self._engine, self._prompt, self._priority = engine, prompt, priority
        self._task: asyncio.Task[Encoded] | None = None

    async def encoded(self) -> Encoded:
        """Its vectors. Raises what `Engine.encode` does; an `ImageError` says that it is the query's."""
        if self._task is None:
            self._task = asyncio.create_task(self._encode())
        return await self._task

    async def _encode(self) -> Encoded:
        try:
            return await self._engine.encode(self._prompt, self._priority)
        except ImageError as error:
            raise ImageError(f"the query: {error}") from error


async def max_sim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    """Late interaction: for each token of the query the best match in the document, on average.

    [q, d] and [t, d], rows of length 1 -> a score in [-1, 1]. The sum of ColBERT (Khattab and Zaharia
    2020) over the number of the query's tokens: the order is the same, and scores of different queries
    are on one scale.
    """
    if len(query) * len(document) <= _PRODUCTS_ON_THE_LOOP:
        return _max_sim(query, document)
    return await asyncio.to_thread(_max_sim, query, document)


def _max_sim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    rows = max(1, _PRODUCTS_AT_ONCE // len(document))
    best = [(query[row : row + rows] @ document.T).max(axis=1) for row in range(0, len(query), rows)]
    return float(np.concatenate(best).mean())
