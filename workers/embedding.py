"""The service of a merged or shared variant: vectors, multi-vectors and late-interaction scores."""

import asyncio
from collections.abc import Callable
from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triptych.workers.checkpoints.layout import TOKENIZER
from triptych.workers.checkpoints.shared_variant import FOLDER
from triptych.workers.checkpoints.space import vector_space
from triptych.workers.checkpoints.variant import Variant, read_variant
from triptych.workers.encoding import Job, info_of
from triptych.workers.engine_args import context_of, dtype_of, engine_args, tolerance_of
from triptych.workers.item_error import ItemError
from triptych.workers.pixels import ImageDecoder, striped_png
from triptych.workers.prompts import Prompt, Prompter
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import (
    Document,
    EncodeRequest,
    Image,
    Info,
    Item,
    PoolName,
    Text,
    Vector,
)
from triptych.workers.shared.families import BY_POOL
from triptych.workers.vllm_engine import Engine, WrongVectorError

_NO_PROJECTOR = "this checkpoint has no multi_vector_projector (official -vllm- folders ship none)"
_SHORT = Text("probe", "query")
_WORDS = "the lighthouse keeper wrote down each ship that passed and the colour of the evening sea "
_WARM_UP_TEXTS = 32
# So many products take a few milliseconds, for which the event loop may be blocked.
_PRODUCTS_ON_THE_LOOP = 1 << 18
# 64 MiB. All products of two texts of 32,768 tokens would take 4 GiB.
_PRODUCTS_AT_ONCE = 1 << 24


class Encoded(NamedTuple):
    """[d], [spans, d] or [tokens, d] float32, and the token ids that the engine read."""

    vector: NDArray[np.float32]
    token_ids: list[int]


_Query = Callable[[], asyncio.Task[Encoded]]
_Asked = _Query | ItemError | None
"""The query of an item, if it has one."""


def load_embedder(variant: Variant, task: PoolName, settings: WorkerSettings) -> "Embedder":
    """Start the engine of a variant. Raises `RuntimeError` if the folder is replaced meanwhile."""
    dtype, max_tokens = dtype_of(variant, settings), context_of(variant, settings)
    space = vector_space(
        variant.path,
        variant.digest,
        dtype=dtype,
        quantization=settings.quantization,
        pooling=variant.family.pooling,
        adapters=variant.adapters,
    )
    adapters = {name: variant.path / FOLDER.format(name) for name in variant.adapters}
    engine = Engine(engine_args(variant, settings), adapters)
    # The engine's vectors would be in another space than `space`.
    if read_variant(variant.path) != variant:
        engine.shutdown()
        raise RuntimeError(f"{variant.path} was replaced while the engine loaded it")
    prompter = Prompter(Tokenizer.from_file(str(variant.path / TOKENIZER)), max_tokens, variant.family)
    info = info_of(
        settings,
        task=task,
        model=variant.source,
        space=space,
        revision=variant.revision,
        dimensions=variant.dimensions,
        multivector_dimensions=variant.multivector_dimensions,
        max_tokens=max_tokens,
    )
    return Embedder(engine, prompter, info, tolerance_of(dtype, settings.quantization))


class Embedder:
    """The service of a merged or shared variant (`triptych.workers.encoding.Service`)."""

    def __init__(self, engine: Engine, prompter: Prompter, info: Info, tolerance: float) -> None:
        self.engine = engine
        self.info = info
        self.tolerance = tolerance
        self._family = BY_POOL[info.task]
        self._prompter = prompter
        self._decoder = ImageDecoder()
        self._plain = engine.params("embed")

    @cached_property
    def canaries(self) -> dict[str, EncodeRequest]:
        # Longer than one engine step, so that it is prefilled in chunks. A model that looks both ways reads a
        # text in one step, which on a CPU may last longer than the watchdog waits.
        long = _WORDS * (1 + self.info.batch_tokens // len(_WORDS.split()) if self._family.causal else 1)
        contents: dict[str, Text | Image] = {"short text": _SHORT, "long text": Text(long, "passage")}
        if self._family.images:
            contents["image"] = Image(striped_png())
        canaries = {}
        for (name, content), adapter in product(contents.items(), self.engine.adapters):
            item = Item(content, truncate=True, adapter=adapter)
            canaries[f"{name}, {adapter}" if adapter else name] = EncodeRequest([item])
        return canaries

    async def warm_up(self) -> None:
        await self.engine.load_adapters()
        # Together, as the texts of a batch are encoded. Without a projector the last item is refused.
        items = []
        for adapter in self.engine.adapters:
            items += [Item(_SHORT, adapter=adapter)] * _WARM_UP_TEXTS
            items.append(Item(_SHORT, multivector=True, adapter=adapter))
        jobs = await self.jobs(EncodeRequest(items))
        await asyncio.gather(*(job() for job in jobs if not isinstance(job, ItemError)))

    async def jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        # An adapter reads a query in its own way.
        asked = dict.fromkeys(
            (item.against, item.adapter) for item in request.items if item.against is not None
        )
        # A query that is too long is cut; its beginning says what is asked for.
        queries = [
            Item(request.queries[number], multivector=True, truncate=True, adapter=adapter)
            for number, adapter in asked
        ]
        prompts = await self._prompter.prompts([*request.items, *queries])
        shared: dict[tuple[int | None, str | None], _Asked] = {
            key: prompt.of_query() if isinstance(prompt, ItemError) else self._once(prompt, request.priority)
            for key, prompt in zip(asked, prompts[len(request.items) :], strict=True)
        }
        return [
            self._job(index, item, prompt, request.priority, shared.get((item.against, item.adapter)))
            for index, (item, prompt) in enumerate(zip(request.items, prompts, strict=False))
        ]

    def _job(
        self, index: int, item: Item, prompt: Prompt | ItemError, priority: int, query: _Asked
    ) -> Job | ItemError:
        if isinstance(prompt, ItemError):
            return prompt
        if item.adapter not in self.engine.adapters:
            known = ", ".join(filter(None, self.engine.adapters))
            needed = f"name one of {known}" if known else "the adapter is merged, so leave it out"
            why = f"this engine cannot encode with adapter {item.adapter!r}: {needed}"
            return ItemError("unsupported", why)
        if prompt.pooling.multivector and self.info.multivector_dimensions is None:
            why = _NO_PROJECTOR if self._family.multivector else f"{self._family.name} has no multi-vectors"
            return ItemError("unsupported", why)
        if isinstance(query, ItemError):
            return query
        if query is None:
            return lambda: self._vector(index, item, prompt, priority)
        return lambda: self._score(index, query, prompt, priority)

    async def _vector(self, index: int, item: Item, prompt: Prompt, priority: int) -> Vector:
        vector, token_ids = await self.encode(prompt, priority)
        if isinstance(item.content, Document):
            # For a single span the engine returns [d].
            vector = vector.reshape(len(item.content.chunks), -1)
        texts = self._prompter.token_texts(token_ids) if item.tokenized else None
        return Vector(index, len(token_ids), vector.shape, vector.tobytes(), prompt.cut, texts)

    def _once(self, prompt: Prompt, priority: int) -> _Query:
        """The vectors of a query, encoded when the first of its items needs them. Raises as `encode`."""

        async def encode() -> Encoded:
            try:
                return await self.encode(prompt, priority)
            except ItemError as error:
                raise error.of_query() from error

        return cache(lambda: asyncio.create_task(encode()))

    async def _score(self, index: int, query: _Query, prompt: Prompt, priority: int) -> Vector:
        asked, found = await asyncio.gather(query(), self.encode(prompt, priority))
        score = np.float32(await max_sim(asked.vector, found.vector)).tobytes()
        tokens = len(found.token_ids)
        return Vector(index, tokens, (1,), score, prompt.cut, query_tokens=len(asked.token_ids))

    async def encode(self, prompt: Prompt, priority: int) -> Encoded:
        """Encode one prompt. Raises `ItemError` for a broken image, `WrongVectorError`, and vLLM's errors."""
        wanted = prompt.pooling.to_kwargs()
        params = self.engine.params("embed", wanted) if wanted else self._plain
        if prompt.image is None:
            output = await self.engine.encode_tokens(prompt.token_ids, params, priority, prompt.adapter)
        else:
            # vLLM keeps the pixels until it returns the vector.
            async with self._decoder.decoded(prompt.image) as [image]:
                tokens = {"prompt_token_ids": prompt.token_ids, "multi_modal_data": {"image": image}}
                output = await self.engine.encode(tokens, params, priority, prompt.adapter)
        vector = output.outputs.data.numpy()
        self._check(vector, len(output.prompt_token_ids), prompt)
        return Encoded(vector, output.prompt_token_ids)

    def _check(self, vector: NDArray[np.float32], tokens: int, prompt: Prompt) -> None:
        pooling, full = prompt.pooling, self.info.dimensions
        expected: tuple[int | None, ...] = (min(pooling.dimensions or full, full),)
        if pooling.multivector:
            expected = (tokens, self.info.multivector_dimensions)
        elif len(pooling.spans) > 1:
            expected = (len(pooling.spans), *expected)
        if vector.shape != expected or vector.dtype != np.float32:
            raise WrongVectorError(f"expected float32 {expected}, got {vector.dtype} {vector.shape}")
        flat = vector.ravel()
        # One pass without a temporary array: an inf or NaN makes the sum of squares inf or NaN.
        if not np.isfinite(np.dot(flat, flat)):
            raise WrongVectorError("the vector has inf or NaN")


async def max_sim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    """Late interaction: the mean over the query's tokens of each one's best match in the document.

    [q, d] and [t, d], rows of length 1 -> a score in [-1, 1]. This is ColBERT's sum (Khattab and Zaharia
    2020) divided by the query's tokens, which keeps the order and puts scores of different queries on one
    scale.
    """
    if len(query) * len(document) <= _PRODUCTS_ON_THE_LOOP:
        return _max_sim(query, document)
    return await asyncio.to_thread(_max_sim, query, document)


def _max_sim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    rows = max(1, _PRODUCTS_AT_ONCE // len(document))
    best = [(query[row : row + rows] @ document.T).max(axis=1) for row in range(0, len(query), rows)]
    return float(np.concatenate(best).mean())
