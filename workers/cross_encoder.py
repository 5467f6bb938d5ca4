"""The service of the `rerank` pool: a cross-encoder reads query and document together.

Serves any sequence classifier with one label that vLLM supports, for example
jinaai/jina-reranker-v2-base-multilingual. A score is vLLM's `classify` output, by default the sigmoid of the
logit.
"""

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from tokenizers import Tokenizer

from triptych.workers.checkpoints.layout import TOKENIZER, CheckpointError
from triptych.workers.checkpoints.space import vector_space
from triptych.workers.cross_encoder_config import config_folder, read_config
from triptych.workers.encoding import Job
from triptych.workers.engine_args import cross_encoder_args, tolerance_of
from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import EncodeRequest, Info, Item, Text, Vector
from triptych.workers.vllm_engine import Engine, WrongVectorError, versions
from triptych.workers.windows import Windows, WindowTokenizer

logger = logging.getLogger(__name__)

_TEXT_ONLY = "the configured reranker takes only a text query and text documents"
_QUERY = Text("what does the lighthouse keeper write down?", "query")
_DOCUMENTS = {
    "short pair": "the lighthouse keeper writes down each ship",
    "long pair": "the colour of the evening sea " * 200,
}


class CrossEncoder:
    """The service of a cross-encoder (`triptych.workers.encoding.Service`); scores texts against texts.

    Reads a document in windows of the context, up to `WORKER_MAX_TOKENS` in all, as the router counts it. The
    best window's score is the document's. Raises `CheckpointError` if the folder holds no cross-encoder.
    """

    canaries: ClassVar = {
        name: EncodeRequest([Item(Text(text, "passage"), against=0)], queries=[_QUERY])
        for name, text in _DOCUMENTS.items()
    }

    def __init__(self, folder: Path, settings: WorkerSettings) -> None:
        config = read_config(folder)
        if not (folder / TOKENIZER).exists():
            raise CheckpointError(f"{folder} has no {TOKENIZER}; fetch it again")
        max_tokens = min(settings.max_tokens, config.context)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer = WindowTokenizer(tokenizer, max_tokens, settings.max_tokens)
        # Few, because long documents take much memory.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="windows")
        self._token_types = config.token_types
        args = cross_encoder_args(folder, max_tokens, settings)
        # A temporary folder, which vLLM may read for as long as the engine runs.
        self._config_folder = config_folder(config)
        if self._config_folder is not None:
            args["hf_config_path"] = self._config_folder.name
        self.engine = Engine(args)
        # vLLM may have chosen the dtype.
        dtype = self.engine.dtype
        self.tolerance = tolerance_of(dtype, settings.quantization)
        self.info = Info(
            task="rerank",
            model=settings.model,
            space=vector_space(folder, None, dtype=dtype, quantization=settings.quantization),
            instance=secrets.token_hex(8),
            revision=settings.revision,
            dimensions=1,
            multivector_dimensions=None,
            max_tokens=max_tokens,
            batch_tokens=settings.batch_tokens,
            versions=versions(),
        )

    async def warm_up(self) -> None:
        """Nothing: the canaries run right after it, and cover all kinds of input."""

    async def jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._jobs, request)

    def _jobs(self, request: EncodeRequest) -> list[Job | ItemError]:
        # Many documents share a query.
        shortened = cache(self._tokenizer.shorten)
        jobs: list[Job | ItemError] = []
        for index, item in enumerate(request.items):
            query = None if item.against is None else request.queries[item.against]
            if not isinstance(query, Text) or not isinstance(item.content, Text):
                jobs.append(ItemError("unsupported", _TEXT_ONLY))
                continue
            try:
                windows = self._tokenizer.windows(shortened(query.text), item.content.text)
            # The tokenizer has no exception class of its own.
            except Exception as error:
                logger.exception("cannot tokenize a pair")
                jobs.append(ItemError("internal", f"the pair cannot be tokenized: {error}"))
                continue
            jobs.append(partial(self._score, index, windows, request.priority))
        return jobs

    async def _score(self, index: int, windows: Windows, priority: int) -> Vector:
        # vLLM takes the position of the second segment instead of a type for each token.
        segment = windows.second_segment if self._token_types else None
        extra = None if segment is None else {"compressed_token_type_ids": segment}
        params = self.engine.params("classify", extra)
        outputs = await asyncio.gather(
            *(self.engine.encode_tokens(token_ids, params, priority) for token_ids in windows.token_ids)
        )
        scores = np.array([output.outputs.data.float().numpy().reshape(-1) for output in outputs], "<f4")
        if scores.shape != (len(outputs), 1) or not np.isfinite(scores).all():
            raise WrongVectorError(f"expected one finite score for each window, got {scores}")
        tokens = sum(map(len, windows.token_ids))
        return Vector(index, tokens, (1,), scores.max(axis=0).tobytes(), 0 if windows.cut else None)
