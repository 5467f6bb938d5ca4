"""The vLLM engine of one variant: prompts in, float32 vectors out."""

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workers.checkpoints.digest import Advance
from workers.checkpoints.layout import ARCHITECTURE, MAX_PIXELS, MIN_PIXELS, TOKENIZER
from workers.checkpoints.space import vector_space
from workers.checkpoints.variant import CheckpointError, Variant
from workers.decoding import Decoder
from workers.llm import VERSIONS, Llm, common_args, versions
from workers.prompts import Prompt, Prompter
from workers.settings import WorkerSettings
from workers.shared.contract import Info, PoolName

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """[d], [spans, d] or [tokens, d] float32, and the tokens that the engine read."""

    vector: NDArray[np.float32]
    token_ids: list[int]


class WrongVectorError(RuntimeError):
    """The engine returned a vector of the wrong shape, or one that is not finite."""


class Engine:
    """Starts vLLM for a variant; blocks until the weights are loaded (seconds to minutes)."""

    def __init__(self, variant: Variant, task: PoolName, settings: WorkerSettings) -> None:
        max_tokens = context_of(variant, settings)
        dtype = dtype_of(variant, settings)
        space = vector_space(
            variant.path,
            variant.digest,
            dtype=dtype,
            quantization=settings.quantization,
            progress=log_reading,
        )
        self.tolerance = tolerance_of(dtype, settings.quantization)
        self._llm = Llm(engine_args(variant, settings))
        self._plain = self._llm.params("embed")
        tokenizer = Tokenizer.from_file(str(variant.path / TOKENIZER))
        self.prompter = Prompter(tokenizer, max_tokens)
        self._decoder = Decoder()
        self.info = Info(
            task=task,
            model=variant.source or variant.path.name,
            space=space,
            instance=secrets.token_hex(8),
            revision=variant.revision,
            dimensions=variant.dimensions,
            multivector_dimensions=variant.multivector_dimensions,
            max_tokens=max_tokens,
            batch_tokens=settings.batch_tokens,
            versions=versions(*VERSIONS),
        )

    @property
    def dead(self) -> bool:
        """True once the engine process has failed; it does not come back."""
        return self._llm.dead

    @property
    def busy(self) -> bool:
        """True while it has requests."""
        return self._llm.busy

    @property
    def steps(self) -> int:
        """Steps that it has made."""
        return self._llm.steps

    async def encode(self, prompt: Prompt, priority: int = 0) -> Encoded:
        """The vectors of one prompt.

        Raises `ImageError`, `WrongVectorError`, and vLLM's errors as they are.
        """
        wanted = prompt.pooling.to_kwargs()
        params = self._llm.params("embed", wanted) if wanted else self._plain
        if prompt.image is None:
            output = await self._llm.encode_tokens(prompt.token_ids, params, priority)
        else:
            # vLLM holds on to the pixels until it has the vector.
            async with self._decoder.decoded(prompt.image) as image:
                tokens = {"prompt_token_ids": prompt.token_ids, "multi_modal_data": {"image": image}}
                output = await self._llm.encode(tokens, params, priority)
        vector = output.outputs.data.numpy()
        self._check(vector, len(output.prompt_token_ids), prompt)
        return Encoded(vector, output.prompt_token_ids)

    def shutdown(self) -> None:
        """Stop the engine's processes; the engine is of no use after that."""
        self._llm.shutdown()

    def _check(self, vector: NDArray[np.float32], tokens: int, prompt: Prompt) -> None:
        pooling = prompt.pooling
        expected: tuple[int | None, ...]
        if pooling.multivector:
            expected = (tokens, self.info.multivector_dimensions)
        else:
            expected = (min(pooling.dimensions or self.info.dimensions, self.info.dimensions),)
            if len(pooling.spans) > 1:
                expected = (len(pooling.spans), *expected)
        if vector.shape != expected or vector.dtype != np.float32:
            raise WrongVectorError(f"expected float32 {expected}, got {vector.dtype} {vector.shape}")
        flat = vector.ravel()
        # One pass without a temporary: any inf or NaN among the values makes the sum of squares so.
        if not np.isfinite(np.dot(flat, flat)):
            raise WrongVectorError("the vector is not finite")


def context_of(variant: Variant, settings: WorkerSettings) -> int:
    """The longest input in tokens: what is set, but one less than the model's positions (`engine_args`)."""
    return min(settings.max_tokens, variant.positions - 1) if variant.positions else settings.max_tokens


def dtype_of(variant: Variant, settings: WorkerSettings) -> str:
    """The engine's arithmetic. vLLM's own "auto" would turn a float32 checkpoint into float16."""
    return variant.dtype if settings.dtype == "auto" else settings.dtype


def tolerance_of(dtype: str, quantization: str | None) -> float:
    """How far rounding may move a vector, relative to its length.

    It depends on what else is in a batch. In float32 on a CPU vectors moved by less than 1e-5; stored and
    computed in bfloat16 they are at cosine 0.9998 of those in float32, which is 0.02.
    """
    if quantization is not None:
        return 0.1
    return 0.005 if dtype == "float32" else 0.05


def log_reading(title: str, nbytes: int) -> Advance:
    """Say in the log that `nbytes` are read at start: a progress for `vector_space`."""
    logger.info("%s (%.1f GB) for the digest of the vector space", title, nbytes / 1e9)
    return lambda done: None


def engine_args(variant: Variant, settings: WorkerSettings) -> dict[str, Any]:
    """What vLLM is started with for a variant: arguments of its `AsyncEngineArgs`."""
    from vllm.config import PoolerConfig

    args: dict[str, Any] = {
        "model": str(variant.path),
        "served_model_name": "jina-embeddings-v4",
        "convert": "none",
        # LAST only tells vLLM that chunked prefill is safe; the pooling is the plugin's.
        "pooler_config": PoolerConfig(task="embed", seq_pooling_type="LAST"),
        "hf_overrides": {
            "architectures": [ARCHITECTURE],
            "multi_vector_dimensions": variant.multivector_dimensions or 0,
        },
        "dtype": dtype_of(variant, settings),
        # Before 0.32 vLLM keeps a token free for an answer, which there is none of here, when it goes on with
        # a prompt that does not fit into one step; one of exactly this length would wait for ever.
        "max_model_len": context_of(variant, settings) + 1,
        "enable_chunked_prefill": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        # Official -vllm- folders name other bounds than the model's own code keeps to.
        "mm_processor_kwargs": {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS},
        # Corpora repeat few images; the cache would cost a hash of every one's pixels.
        "mm_processor_cache_gb": 0,
    }
    return common_args(settings) | args | settings.engine_args


def resolve_folder(model: str, revision: str | None) -> Path:
    """The local folder of a model: itself, or downloaded from Hugging Face by id.

    Raises `CheckpointError` for what can be neither, `OSError` for a repository that cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, revision=revision))
    except HFValidationError:
        raise CheckpointError(
            f"{model} is no folder, nor can it be the Hugging Face id of a repository; "
            "set WORKER_MODEL to the folder of a variant, as `merge` writes it"
        ) from None
