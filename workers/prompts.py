"""Prompts: token ids of an item, prefix included, and the tokens to pool.

The prompts are the model's own (`modeling_jina_embeddings_v4.py`): `Query: ` or `Passage: ` before a text,
without BOS and EOS; one fixed prompt around an image, pooled from vision_start to vision_end inclusive.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from workers.chunks import join, spans_of
from workers.item_error import ItemError
from workers.plugin.pooling_spec import PoolingSpec
from workers.shared.contract import Image, Item, Text

logger = logging.getLogger(__name__)

PREFIXES = {"query": "Query: ", "passage": "Passage: "}
IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"

# Below this many characters, tokenizing takes less time than a thread switch.
_INLINE_CHARACTERS = 400
# The vocabulary has one letter for each byte of a token. The tokenizer composes characters first (NFC), at
# most three into two bytes (U+01D6 is a u and two marks).
_CHARACTERS_PER_BYTE = 1.5


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, the encoded image for their placeholder if there is one, and what to pool.

    `cut` is the chunk (0 for a text) that was truncated, None if nothing was.
    """

    token_ids: list[int]
    image: bytes | None
    pooling: PoolingSpec
    cut: int | None = None


class _Reading(NamedTuple):
    """A text to tokenize, and where the chunks of a document begin in it (empty for a text)."""

    text: str
    chunk_starts: list[int]


class Prompter:
    """Tokenizes batches of items without blocking the event loop.

    Disables the padding and truncation of `tokenizer`. Raises `ValueError` if it lacks the model's special
    tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        # The tokenizer's file may hold values for training.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._token_characters = math.ceil(max(map(len, tokenizer.get_vocab())) * _CHARACTERS_PER_BYTE)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="prompts")
        self._image_ids: list[int] = self._encode([IMAGE_PROMPT])[0].ids
        start, end = (self._position(token) for token in ("<|vision_start|>", "<|vision_end|>"))
        self._image_span = (start, end + 1 - len(self._image_ids))

    async def prompts(self, items: Sequence[Item]) -> list[Prompt | ItemError]:
        """One prompt, or its error, for each item."""
        readings = [self._reading(item) for item in items]
        texts = [reading.text for reading in readings if isinstance(reading, _Reading)]
        offsets = any(isinstance(reading, _Reading) and reading.chunk_starts for reading in readings)
        loop = asyncio.get_running_loop()
        encodings: Sequence[Encoding | ItemError]
        try:
            if sum(map(len, texts)) <= _INLINE_CHARACTERS:
                encodings = self._encode(texts, offsets)
            else:
                encodings = await loop.run_in_executor(self._threads, self._encode, texts, offsets)
        except Exception:
            # The tokenizer does not say which text failed.
            encodings = await loop.run_in_executor(self._threads, self._encode_each, texts, offsets)
        next_encoding = iter(encodings)
        return [
            self._text_prompt(item, next(next_encoding), reading.chunk_starts)
            if isinstance(reading, _Reading)
            else reading
            for item, reading in zip(items, readings, strict=True)
        ]

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; U+FFFD for each part of a character that spans several tokens."""
        return self._tokenizer.decode_batch([[token] for token in token_ids], skip_special_tokens=False)

    def _reading(self, item: Item) -> "_Reading | Prompt | ItemError":
        """The text to tokenize, or the result if nothing has to be tokenized.

        A text that is certainly too long is not tokenized whole: tens of megabytes would take a minute and
        block other requests.
        """
        content = item.content
        if isinstance(content, Image):
            return Prompt(self._image_ids, content.data, _pooling(item, self._image_span))
        prefix = PREFIXES[content.role]
        text, chunk_starts = (
            (prefix + content.text, []) if isinstance(content, Text) else join(prefix, content.chunks)
        )
        # One token over the limit, so that the shortened text is still too long.
        longest = (self._max_tokens + 1) * self._token_characters
        if len(text) <= longest:
            return _Reading(text, chunk_starts)
        if not item.truncate:
            return self._too_long(f"{len(text)} characters")
        if chunk_starts and chunk_starts[-1] >= self._max_tokens * self._token_characters:
            return ItemError(
                "token_limit",
                f"chunk {len(chunk_starts) - 1} begins at character {chunk_starts[-1]}, "
                f"the limit is {self._max_tokens} tokens: send fewer chunks",
            )
        return _Reading(text[:longest], chunk_starts)

    def _text_prompt(
        self, item: Item, encoding: Encoding | ItemError, chunk_starts: Sequence[int]
    ) -> Prompt | ItemError:
        if isinstance(encoding, ItemError):
            return encoding
        token_ids: list[int] = encoding.ids
        over = len(token_ids) > self._max_tokens
        if over and not item.truncate:
            return self._too_long(f"{len(token_ids)} tokens")
        spans = []
        if chunk_starts:
            try:
                spans = spans_of([start for start, _ in encoding.offsets], chunk_starts, self._max_tokens)
            except ItemError as error:
                return error
        # `spans_of` refuses chunks behind the limit, so only the last one can be cut.
        cut = max(0, len(spans) - 1) if over else None
        return Prompt(token_ids[: self._max_tokens], None, _pooling(item, *spans), cut)

    def _too_long(self, length: str) -> ItemError:
        message = f"the text has {length}, prefix included; the limit is {self._max_tokens} tokens"
        return ItemError("token_limit", f"{message}. Shorten it or set truncate.")

    def _encode(self, texts: list[str], offsets: bool = False) -> list[Encoding]:
        # Both release the GIL and use several cores; the fast one keeps no offsets.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return encode(texts, add_special_tokens=False)

    def _encode_each(self, texts: list[str], offsets: bool) -> list[Encoding | ItemError]:
        encodings: list[Encoding | ItemError] = []
        for text in texts:
            try:
                encodings += self._encode([text], offsets)
            except Exception as error:
                logger.exception("cannot tokenize a text of %d characters", len(text))
                encodings.append(ItemError("internal", f"the text cannot be tokenized: {error}"))
        return encodings

    def _position(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None or token_id not in self._image_ids:
            raise ValueError(f"the tokenizer has no token {token}: it is not one of jina-embeddings-v4")
        return self._image_ids.index(token_id)


def _pooling(item: Item, *spans: tuple[int, int]) -> PoolingSpec:
    if item.multivector or item.against is not None:
        # All tokens of the prompt, also for images.
        return PoolingSpec(multivector=True)
    return PoolingSpec(spans, item.dimensions, item.normalized)
