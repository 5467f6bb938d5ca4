"""What a worker of the `rerank` pool does: a cross-encoder reads query and document together.

Any sequence classifier with one label that vLLM serves, for example
jinaai/jina-reranker-v2-base-multilingual. A score is what vLLM's `classify` gives, by default the logit
through a sigmoid.
"""

import asyncio
import logging
import secrets
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from workers.checkpoints.layout import TOKENIZER
from workers.checkpoints.space import vector_space
from workers.checkpoints.variant import CheckpointError
from workers.cross_encoder_config import config_args, read_config
from workers.encoding import Job
from workers.engine import WrongVectorError, log_reading, tolerance_of
from workers.llm import VERSIONS, Llm, common_args, versions
from workers.settings import WorkerSettings
from workers.shared.contract import EncodeRequest, Failure, Frame, Info, Item, Text, Vector
from workers.windows import Windows, WindowTokenizer

logger = logging.getLogger(__name__)

_TEXTS_ONLY = "the reranker that is configured here takes a text query and text documents only"
_QUERY = Text("what does the lighthouse keeper write down?", "query")
_DOCUMENTS = {
    "short pair": "the lighthouse keeper writes down each ship",
    "long pair": "the colour of the evening sea " * 200,
}


class CrossEncoder:
    """The service of a cross-encoder (`workers.encoding.Service`); takes texts against texts only.

    A document is read in windows of the context, up to `WORKER_MAX_TOKENS` in all, as the router counts it.
    The best window's score is the document's. Raises `CheckpointError` when the folder holds no such model.
    """

    canaries: ClassVar = {
        name: EncodeRequest([Item(Text(text, "passage"), against=0)], queries=[_QUERY])
        for name, text in _DOCUMENTS.items()
    }

    def __init__(self, folder: Path, settings: WorkerSettings) -> None:
        config = read_config(folder)
        if not (folder / TOKENIZER).exists():
            raise CheckpointError(f"{folder} lacks {TOKENIZER}; fetch it again")
        max_tokens = min(settings.max_tokens, config.context)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer = WindowTokenizer(tokenizer, max_tokens, settings.max_tokens)
        self._token_types = config.token_types
        with ExitStack() as stack:
            args = stack.enter_context(config_args(config))
            self._llm = Llm(args | cross_encoder_args(folder, max_tokens, settings))
            stack.callback(self._llm.shutdown)
            # vLLM chooses the dtype of a cross-encoder itself when it is left to.
            dtype = self._llm.dtype
            self.tolerance = tolerance_of(dtype, settings.quantization)
            space = vector_space(
                folder, None, dtype=dtype, quantization=settings.quantization, progress=log_reading
            )
            self._stack = stack.pop_all()
        self.info = Info(
            task="rerank",
            model=settings.model,
            space=space,
            instance=secrets.token_hex(8),
            revision=settings.revision,
            dimensions=1,
            multivector_dimensions=None,
            max_tokens=max_tokens,
            batch_tokens=settings.batch_tokens,
            versions=versions(*VERSIONS),
        )

    @property
    def dead(self) -> bool:
        return self._llm.dead

    @property
    def busy(self) -> bool:
        return self._llm.busy

    @property
    def steps(self) -> int:
        return self._llm.steps

    def shutdown(self) -> None:
        self._stack.close()

    async def warm_up(self) -> None:
        """The canaries are all that is offered."""

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        return await asyncio.to_thread(self._jobs, request)

    def _jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        # Once for each query, which many documents share.
        shortened = cache(self._tokenizer.shorten)
        jobs: list[Job | Failure] = []
        for index, item in enumerate(request.items):
            query = None if item.against is None else request.queries[item.against]
            if not isinstance(query, Text) or not isinstance(item.content, Text):
                jobs.append(Failure(index, "unsupported", _TEXTS_ONLY))
                continue
            try:
                windows = self._tokenizer.windows(shortened(query.text), item.content.text)
            # The tokenizer has no exception of its own.
            except Exception as error:
                logger.exception("a pair cannot be tokenised")
                jobs.append(Failure(index, "internal", f"the pair cannot be tokenised: {error}"))
                continue
            jobs.append(partial(self._score, index, windows, request.priority))
        return jobs

    async def _score(self, index: int, windows: Windows, priority: int) -> Frame:
        # vLLM takes the position of the second segment instead of a type for each token.
        segment = windows.second_segment if self._token_types else None
        params = self._llm.params(
            "classify", None if segment is None else {"compressed_token_type_ids": segment}
        )
        outputs = await asyncio.gather(
            *(self._llm.encode_tokens(token_ids, params, priority) for token_ids in windows.token_ids)
        )
        scores = np.array([output.outputs.data.float().numpy().reshape(-1) for output in outputs], "<f4")
        if scores.shape != (len(outputs), 1) or not np.isfinite(scores).all():
            raise WrongVectorError(f"expected one finite score for each window, got {scores}")
        tokens = sum(map(len, windows.token_ids))
        return Vector(index, tokens, (1,), scores.max(axis=0).tobytes(), 0 if windows.cut else None)


def cross_encoder_args(folder: Path, max_tokens: int, settings: WorkerSettings) -> dict[str, Any]:
    """What vLLM is started with for a cross-encoder: arguments of its `AsyncEngineArgs`."""
    args = {
        "model": str(folder),
        # It is given tokens. Its own tokenizer would read the published config, and ask for the remote code.
        "skip_tokenizer_init": True,
        "dtype": settings.dtype,
        "max_model_len": max_tokens,
        # Both ways of attention at once: a text has to fit into one step, and is not to be cut for what is
        # left of one (before 0.32 vLLM would never get to the last token of a text of the full length).
        "max_num_batched_tokens": max(settings.batch_tokens, max_tokens),
        "enable_chunked_prefill": False,
    }
    return common_args(settings) | args | settings.engine_args
