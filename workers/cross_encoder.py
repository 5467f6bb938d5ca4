"""What a worker of the `rerank` pool does: a cross-encoder reads query and document together.

Any sequence classifier with one label that vLLM serves, for example
jinaai/jina-reranker-v2-base-multilingual. A score is what vLLM's `classify` gives, by default the logit
through a sigmoid.
"""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from workers.checkpoints.layout import TOKENIZER
from workers.checkpoints.variant import CheckpointError
from workers.contract import EncodeRequest, Failure, Frame, Info, Item, Text, Vector
from workers.cross_encoder_config import config_args, read_config
from workers.encoding import Job
from workers.engine import WrongVectorError
from workers.llm import VERSIONS, Llm, common_args, versions
from workers.settings import WorkerSettings
from workers.windows import Windows, WindowTokenizer

_TEXTS_ONLY = "the reranker that is configured here takes a text query and text documents only"
_PROBE = EncodeRequest([Item(Text("a document", "passage"), against=0)], queries=[Text("a query", "query")])


class CrossEncoder:
    """The service of a cross-encoder (`workers.encoding.Service`); takes texts against texts only.

    A long document is read in windows, up to `WORKER_MAX_TOKENS` tokens in all; the best score of a window is
    the document's. Raises `CheckpointError` when the folder holds no such model.
    """

    def __init__(self, folder: Path, settings: WorkerSettings) -> None:
        config = read_config(folder)
        if not (folder / TOKENIZER).exists():
            raise CheckpointError(f"{folder} lacks {TOKENIZER}; fetch it again")
        max_tokens = min(settings.max_tokens, config.context)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer = WindowTokenizer(tokenizer, max_tokens, settings.max_tokens)
        with ExitStack() as stack:
            args = stack.enter_context(config_args(config))
            self._llm = Llm(args | cross_encoder_args(folder, max_tokens, settings))
            stack.callback(self._llm.shutdown)
            self._stack = stack.pop_all()
        self.info = Info(
            task="rerank",
            model=settings.model,
            digest=None,
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

    def shutdown(self) -> None:
        self._stack.close()

    async def probe(self) -> None:
        [job] = await self.jobs(_PROBE)
        if isinstance(job, Failure):
            raise RuntimeError(job.message)
        await job()

    async def warm_up(self) -> None:
        await self.probe()

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        return await asyncio.to_thread(self._jobs, request)

    def _jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        # Once for each query, which many documents share.
        queries = [
            self._tokenizer.shorten(query.text) if isinstance(query, Text) else None
            for query in request.queries
        ]
        return [
            self._job(index, item, None if item.against is None else queries[item.against], request.priority)
            for index, item in enumerate(request.items)
        ]

    def _job(self, index: int, item: Item, query: str | None, priority: int) -> Job | Failure:
        if query is None or not isinstance(item.content, Text):
            return Failure(index, "unsupported", _TEXTS_ONLY)
        windows = self._tokenizer.windows(query, item.content.text)
        return lambda: self._score(index, windows, priority)

    async def _score(self, index: int, windows: Windows, priority: int) -> Frame:
        # vLLM takes the position of the second segment instead of a type for each token.
        segment = windows.second_segment
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
        "dtype": settings.dtype,
        "max_model_len": max_tokens,
        # Both ways of attention at once: a text has to fit into one step, and is not to be cut for what is
        # left of one (before 0.32 vLLM would never get to the last token of a text of the full length).
        "max_num_batched_tokens": max(settings.batch_tokens, max_tokens),
        "enable_chunked_prefill": False,
    }
    return common_args(settings) | args | settings.engine_args
