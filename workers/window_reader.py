"""How a sequence classifier reads a pair: in windows of its context.

Reads a long document in overlapping windows, up to `WORKER_MAX_TOKENS` in all, as the router counts it. For
any model with one label that vLLM supports, for example jinaai/jina-reranker-v2-base-multilingual.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from triptych.workers.checkpoints.folders import load_json, write_json
from triptych.workers.checkpoints.layout import CONFIG, TOKENIZER, CheckpointError
from triptych.workers.cross_encoder import Content, Pair
from triptych.workers.engine_args import cross_encoder_args
from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import Image, PoolName, Text

_TEXT_ONLY = "the configured reranker takes only a text query and text documents"
# Tokens that neighbouring windows share, so that a sentence at a boundary is whole in one of them.
_OVERLAP = 80

MODEL_TYPES = {
    "BertForSequenceClassification": "bert",
    "ModernBertForSequenceClassification": "modernbert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "xlm-roberta",
}
"""transformers' `model_type` of the architectures that vLLM 0.32 implements itself (its model registry)."""

_PADDED = ("Roberta", "XLMRoberta", "Camembert")


class WindowReader:
    """A `triptych.workers.cross_encoder.Reader`.

    Raises `CheckpointError` if the folder holds no cross-encoder.
    """

    images = False

    def __init__(self, folder: Path, task: PoolName, settings: WorkerSettings) -> None:
        positions, self._token_types, rewritten = read_config(folder)
        # Checks it: the tokenizers library does not say which file is missing or a pointer of Git LFS.
        load_json(folder / TOKENIZER)
        self.folder, self.task = folder, task
        context = self.max_tokens = min(settings.max_tokens, positions)
        self.engine_args = cross_encoder_args(folder, context, settings)
        if rewritten is not None:
            # The checkpoint's own folder may be read-only. vLLM may read this one for as long as the engine
            # runs; it is removed with this object.
            self._config_folder = TemporaryDirectory(prefix="triptych-config-")
            write_json(Path(self._config_folder.name) / CONFIG, rewritten)
            self.engine_args["hf_config_path"] = self._config_folder.name
        self._max_windows = max(1, settings.max_tokens // context)
        self._max_query = context // 2
        tokenizer = self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        # The tokenizer's file may hold values for training.
        tokenizer.no_padding()
        room = context - tokenizer.num_special_tokens_to_add(is_pair=True) - self._max_query
        # At most half of the smallest window, so that each window advances.
        tokenizer.enable_truncation(context, stride=min(_OVERLAP, room // 2), strategy="only_second")
        # Tokenizing megabytes takes seconds, so text is cut to this many characters first. No token is
        # longer, so the windows are full by then unless most of the text is white space.
        longest = max(map(len, tokenizer.get_vocab()))
        self._max_characters = self._max_windows * context * longest
        self._max_query_characters = (self._max_query + 1) * longest

    def query(self, content: Content) -> Content:
        """The query, cut to half of the context."""
        if isinstance(content, Image):
            return content
        query = content.text[: self._max_query_characters]
        # The tokenizer truncates only the second text of a pair.
        [encoding] = self._tokenizer.encode_batch([("", query)])
        parts = zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ends = [end for sequence, (_, end) in parts if sequence == 1]
        cut = len(ends) > self._max_query
        return Text(query[: ends[self._max_query - 1]] if cut else query, content.role)

    def pair(self, query: Content, document: Content) -> Pair:
        if isinstance(query, Image) or isinstance(document, Image):
            raise ItemError("unsupported", _TEXT_ONLY)
        text = document.text[: self._max_characters]
        # Unlike `encode`, `encode_batch` releases the GIL.
        [first] = self._tokenizer.encode_batch([(query.text, text)])
        encodings = [first, *first.overflowing]
        # Only the first window has the template's token types: tokenizers 0.23 sets others in the overflow.
        types = first.type_ids
        # vLLM takes the position of the second segment instead of a type for each token.
        extra = {"compressed_token_type_ids": types.index(1)} if self._token_types and 1 in types else None
        return Pair(
            [encoding.ids for encoding in encodings[: self._max_windows]],
            extra=extra,
            cut=len(encodings) > self._max_windows or len(text) < len(document.text),
        )


def read_config(folder: Path) -> tuple[int, bool, dict[str, Any] | None]:
    """The longest pair in tokens, whether the model reads token types, and the config to use instead, if any.

    Raises `CheckpointError` for a model that is not a classifier with one label, or that needs remote code.
    """
    config = load_json(folder / CONFIG)
    architectures = config.get("architectures") or []
    architecture = next((name for name in architectures if name.endswith("ForSequenceClassification")), None)
    if architecture is None:
        raise CheckpointError(f"{folder} holds {architectures}, not a cross-encoder for the rerank pool")
    if len(config.get("id2label") or {0: ""}) != 1 and config.get("num_labels") != 1:
        raise CheckpointError(f"{folder} has several labels; a reranker has one")
    positions = int(config.get("max_position_embeddings", 512))
    offset = 0
    if architecture.startswith(_PADDED):
        # These models number positions from pad_token_id + 1.
        padding = config.get("pad_token_id")
        offset = 1 + (1 if padding is None else int(padding))
    # Other models' tokenizers set token types too, but ModernBERT crashes vLLM's engine if it gets them.
    token_types = architecture == "BertForSequenceClassification"
    return positions - offset, token_types, _rewritten(folder, config, architecture)


def _rewritten(folder: Path, config: dict[str, Any], architecture: str) -> dict[str, Any] | None:
    remote = "AutoConfig" in (config.get("auto_map") or {})
    if "model_type" in config and not remote:
        return None
    # Jina's XLM-RoBERTa code also has rotary positions under this architecture; vLLM has only absolute ones.
    if architecture not in MODEL_TYPES or config.get("position_embedding_type") == "rotary":
        reason = "its auto_map names remote code" if remote else "it has no model_type"
        raise CheckpointError(
            f"{folder / CONFIG}: {architecture} cannot be served: {reason}, and remote code is never run. "
            f"Use a cross-encoder of {', '.join(sorted(MODEL_TYPES))} with absolute positions, or one whose "
            "config.json has a model_type of transformers and no auto_map"
        )
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    return kept | {"model_type": MODEL_TYPES[architecture]}
