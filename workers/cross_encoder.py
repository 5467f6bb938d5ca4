"""What a worker of the `rerank` pool does: a cross-encoder reads query and document together.

Any sequence classifier with one label that vLLM serves, for example
jinaai/jina-reranker-v2-base-multilingual. A score is what vLLM's `classify` gives, by default the logit
through a sigmoid.
"""

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from workers.checkpoints.layout import CONFIG, TOKENIZER
from workers.checkpoints.space import vector_space
from workers.checkpoints.variant import CheckpointError
from workers.contract import EncodeRequest, Failure, Frame, Info, Item, Text, Vector
from workers.encoding import Job
from workers.engine import WrongVectorError, log_reading, tolerance_of
from workers.llm import VERSIONS, Llm, common_args, versions
from workers.settings import WorkerSettings

_TEXTS_ONLY = "the reranker that is configured here takes a text query and text documents only"
_QUERY = Text("what does the lighthouse keeper write down?", "query")
_DOCUMENTS = {
    "short pair": "the lighthouse keeper writes down each ship",
    "long pair": "the colour of the evening sea " * 200,
}


class CrossEncoder:
    """The service of a cross-encoder (`workers.encoding.Service`); takes texts against texts only.

    Raises `CheckpointError` when the folder holds no such model.
    """

    canaries: ClassVar = {
        name: EncodeRequest([Item(Text(text, "passage"), against=0)], priority=1, queries=[_QUERY])
        for name, text in _DOCUMENTS.items()
    }

    def __init__(self, folder: Path, settings: WorkerSettings) -> None:
        max_tokens = min(settings.max_tokens, read_context(folder))
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        # Its file may say of either what was meant for training.
        self._tokenizer.no_padding()
        # A document that is too long is cut, the query never.
        self._tokenizer.enable_truncation(max_tokens, strategy="only_second")
        space = vector_space(
            folder, None, dtype=settings.dtype, quantization=settings.quantization, progress=log_reading
        )
        self.tolerance = tolerance_of(settings.dtype, settings.quantization)
        self._llm = Llm(cross_encoder_args(folder, max_tokens, settings))
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
        self._llm.shutdown()

    async def warm_up(self) -> None:
        """The canaries are all that is offered."""

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        return await asyncio.to_thread(
            lambda: [self._job(index, request) for index in range(len(request.items))]
        )

    def _job(self, index: int, request: EncodeRequest) -> Job | Failure:
        item = request.items[index]
        query = None if item.against is None else request.queries[item.against]
        document = item.content
        if not isinstance(query, Text) or not isinstance(document, Text):
            return Failure(index, "unsupported", _TEXTS_ONLY)
        try:
            encoding = self._tokenizer.encode(query.text, document.text)
        # The tokenizer has no exception of its own: the query alone is longer than the context.
        except Exception as error:
            return Failure(index, "token_limit", f"the query is too long: {error}")
        return lambda: self._score(index, encoding, request.priority)

    async def _score(self, index: int, encoding: Encoding, priority: int) -> Frame:
        kinds = encoding.type_ids
        # vLLM takes the place of the second segment instead of a kind for each token.
        extra = {"compressed_token_type_ids": kinds.index(1)} if 1 in kinds else None
        params = self._llm.params("classify", extra)
        output = await self._llm.encode_tokens(encoding.ids, params, priority)
        score = output.outputs.data.float().numpy().reshape(-1)
        if score.shape != (1,) or not np.isfinite(score[0]):
            raise WrongVectorError(f"expected one finite score, got {score}")
        cut = 0 if encoding.overflowing else None
        return Vector(index, len(encoding.ids), (1,), score.astype("<f4").tobytes(), cut)


def read_context(folder: Path) -> int:
    """How many tokens the model takes. Raises `CheckpointError` for what is no classifier of one label."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}") from None
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise CheckpointError(f"{folder} holds {architectures}, not a cross-encoder for the rerank pool")
    if len(config.get("id2label") or {0: ""}) != 1 and config.get("num_labels") != 1:
        raise CheckpointError(f"{folder} has several labels; a reranker has one")
    if not (folder / TOKENIZER).exists():
        raise CheckpointError(f"{folder} lacks {TOKENIZER}; fetch it again")
    positions = int(config.get("max_position_embeddings", 512))
    # The family of RoBERTa numbers its positions from the padding token's on.
    offset = int(config.get("pad_token_id", 1)) + 1 if "roberta" in config.get("model_type", "") else 0
    return positions - offset


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
