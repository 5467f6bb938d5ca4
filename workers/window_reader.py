"""How a sequence classifier reads a pair: in windows of its context.

Reads a document in windows, up to `WORKER_MAX_TOKENS` in all, as the router counts it. For any model with one
label that vLLM supports, for example jinaai/jina-reranker-v2-base-multilingual.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from triptych.workers.checkpoints.layout import TOKENIZER, CheckpointError
from triptych.workers.cross_encoder_config import config_folder, read_config
from triptych.workers.engine_args import cross_encoder_args
from triptych.workers.item_error import ItemError
from triptych.workers.pairs import Content, Pair
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import PoolName, Text
from triptych.workers.windows import WindowTokenizer

_TEXT_ONLY = "the configured reranker takes only a text query and text documents"


class WindowReader:
    """A `triptych.workers.pairs.Reader`. Raises `CheckpointError` if the folder holds no cross-encoder."""

    images = False

    def __init__(self, folder: Path, task: PoolName, settings: WorkerSettings) -> None:
        config = read_config(folder)
        if not (folder / TOKENIZER).exists():
            raise CheckpointError(f"{folder} has no {TOKENIZER}; fetch it again")
        self.folder, self.task = folder, task
        self.max_tokens = min(settings.max_tokens, config.context)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer = WindowTokenizer(tokenizer, self.max_tokens, settings.max_tokens)
        self._token_types = config.token_types
        self.engine_args = cross_encoder_args(folder, self.max_tokens, settings)
        # A temporary folder, which vLLM may read for as long as the engine runs.
        self._config_folder = config_folder(config)
        if self._config_folder is not None:
            self.engine_args["hf_config_path"] = self._config_folder.name

    def pairs(self) -> Callable[[Content, Content], Pair]:
        # Many documents share a query.
        shortened = cache(self._tokenizer.shorten)

        def pair(query: Content, document: Content) -> Pair:
            if not isinstance(query, Text) or not isinstance(document, Text):
                raise ItemError("unsupported", _TEXT_ONLY)
            windows = self._tokenizer.windows(shortened(query.text), document.text)
            # vLLM takes the position of the second segment instead of a type for each token.
            segment = windows.second_segment if self._token_types else None
            extra = None if segment is None else {"compressed_token_type_ids": segment}
            return Pair(windows.token_ids, extra=extra, cut=windows.cut)

        return pair
