"""The service of a cross-encoder, which reads query and document together.

A score is vLLM's `classify` output, by default the sigmoid of the logit. A `Reader` knows how its model reads
a pair.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from triptych.workers.checkpoints.space import vector_space
from triptych.workers.encoding import Job, info_of
from triptych.workers.engine_args import tolerance_of
from triptych.workers.item_error import ItemError
from triptych.workers.pixels import ImageDecoder, striped_png
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import Document, EncodeRequest, Image, Item, PoolName, Text, Vector
from triptych.workers.vllm_engine import Engine, WrongVectorError

logger = logging.getLogger(__name__)

_QUERY = Text("what does the lighthouse keeper write down?", "query")
_SHORT = Text("the lighthouse keeper writes down each ship", "passage")
_LONG = Text("the colour of the evening sea " * 200, "passage")

Content = Text | Image


class Pair(NamedTuple):
    """The token ids of one or more prompts, of which the best score counts.

    `images` are in the order of their placeholders in the only prompt; `query_image` is the index of the
    query's. `extra` is for vLLM. `cut` is true if the prompts do not hold all of the texts.
    """

    prompts: Sequence[list[int]]
    images: Sequence[bytes] = ()
    query_image: int | None = None
    extra: dict[str, Any] | None = None
    cut: bool = False


class Reader(Protocol):
    """How one kind of cross-encoder is started and reads pairs.

    `max_tokens` is the longest prompt, `images` whether it reads images.
    """

    folder: Path
    task: PoolName
    max_tokens: int
    images: bool
    engine_args: dict[str, Any]

    def query(self, content: Content) -> Content:
        """As much of a query as counts; it is called once for all documents, in a thread."""

    def pair(self, query: Content, document: Content) -> Pair:
        """The pair of a query, as `query` returned it, and a document. Raises `ItemError`."""


class CrossEncoder:
    """The service of a cross-encoder (`triptych.workers.encoding.Service`)."""

    def __init__(self, reader: Reader, settings: WorkerSettings) -> None:
        self._reader = reader
        # Few, because long documents take much memory.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pairs")
        self._decoder = ImageDecoder()
        self.engine = Engine(reader.engine_args)
        # vLLM may have chosen the dtype.
        dtype = self.engine.dtype
        self.tolerance = tolerance_of(dtype, settings.quantization)
        self.canaries = {"short pair": _canary(_QUERY, _SHORT), "long pair": _canary(_QUERY, _LONG)}
        if reader.images:
            image, other = Image(striped_png()), Image(striped_png(84))
            self.canaries |= {"image": _canary(_QUERY, image), "two images": _canary(image, other)}
        self.info = info_of(
            settings,
            task=reader.task,
            model=settings.model,
            space=vector_space(reader.folder, None, dtype=dtype, quantization=settings.quantization),
            revision=settings.revision,
            dimensions=1,
            multivector_dimensions=None,
            max_tokens=reader.max_tokens,
        )

    async def warm_up(self) -> None:
        """Nothing: the canaries run right after it, and cover all kinds of input."""

    async def jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._jobs, request)

    def _jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        query_of = cache(self._reader.query)
        jobs: list[Job | ItemError] = []
        for index, item in enumerate(request.items):
            try:
                if item.against is None or isinstance(item.content, Document):
                    raise ItemError("unsupported", "a reranker takes documents of a query")
                if item.adapter is not None:
                    raise ItemError("unsupported", "a reranker has no adapters")
                pair = self._reader.pair(query_of(request.queries[item.against]), item.content)
                jobs.append(partial(self._score, index, pair, request.priority))
            except ItemError as error:
                jobs.append(error)
            # The tokenizer has no exception class of its own.
            except Exception as error:
                logger.exception("cannot tokenize a pair")
                jobs.append(ItemError("internal", f"the pair cannot be tokenized: {error}"))
        return jobs

    async def _score(self, index: int, pair: Pair, priority: int) -> Vector:
        params = self.engine.params("classify", pair.extra)
        if pair.images:
            [token_ids] = pair.prompts
            # vLLM keeps the pixels until it returns the score.
            async with self._decoder.decoded(*pair.images, query=pair.query_image) as images:
                engine_input = {"prompt_token_ids": token_ids, "multi_modal_data": {"image": images}}
                outputs = [await self.engine.encode(engine_input, params, priority)]
        else:
            outputs = await asyncio.gather(
                *(self.engine.encode_tokens(token_ids, params, priority) for token_ids in pair.prompts)
            )
        tokens = sum(len(output.prompt_token_ids) for output in outputs)
        return Vector(index, tokens, (1,), best_of(outputs), 0 if pair.cut else None)


def best_of(outputs: list[Any]) -> bytes:
    """The best score, as float32. Raises `WrongVectorError` unless each output is one finite score."""
    scores = np.array([output.outputs.data.float().numpy().reshape(-1) for output in outputs], "<f4")
    if scores.shape != (len(outputs), 1) or not np.isfinite(scores).all():
        raise WrongVectorError(f"expected one finite score for each prompt, got {scores}")
    return bytes(scores.max(axis=0))


def _canary(query: Content, document: Content) -> EncodeRequest:
    return EncodeRequest([Item(document, against=0)], queries=[query])
