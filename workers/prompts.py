"""From an item to what the engine reads: prefix, token ids, and which tokens to pool.

The prompts are the model's own (modeling_jina_embeddings_v4.py): `Query: ` or `Passage: ` before a text,
no BOS and no EOS; one fixed prompt around an image, averaged from vision_start to vision_end inclusive.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from workers.chunks import ChunkCutError, EmptyChunkError, join, spans_of
from workers.plugin.spec import PoolingSpec
from workers.shared.contract import Document, Image, Item, Text

logger = logging.getLogger(__name__)

PREFIXES = {"query": "Query: ", "passage": "Passage: "}
IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"

# Tokenising this many characters takes less time than handing them to a thread and back.
_INLINE_CHARACTERS = 400
# A token has one letter in the vocabulary for each byte that it stands for, and the tokenizer composes
# characters before (NFC): no byte is of more than one and a half, as the two of U+01D6, a u and two marks.
_CHARACTERS_A_BYTE = 1.5


class TokenLimitError(ValueError):
    """A text is longer than the context and was not to be cut."""


class PromptError(RuntimeError):
    """An item could not be read for a reason that nobody foresaw; its neighbours are not touched."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, the encoded image that belongs to their placeholder if any, and what to pool.

    `cut` is the part (0 for a text) that lost tokens to the context's limit, None when nothing was cut.
    """

    token_ids: list[int]
    image: bytes | None
    pooling: PoolingSpec
    cut: int | None = None


Fault = TokenLimitError | EmptyChunkError | PromptError
"""What an item can have wrong with itself."""


class _Reading(NamedTuple):
    """A text to be tokenised, and where the parts of a document begin in it (none for a text)."""

    text: str
    chunk_starts: list[int]


class Prompter:
    """Makes prompts of items, a batch at a time, without holding up the event loop.

    The tokenizer's own padding and truncation are switched off.
    Raises `ValueError` from the constructor when the tokenizer lacks the model's special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        # What its file says of these was meant for training; an input would gain tokens, or lose some.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        # No token is of more characters.
        self._reach = math.ceil(max(map(len, tokenizer.get_vocab())) * _CHARACTERS_A_BYTE)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="prompts")
        self._image_ids: list[int] = self._encode([IMAGE_PROMPT])[0].ids
        start, end = (self._position(token) for token in ("<|vision_start|>", "<|vision_end|>"))
        self._image_span = (start, end + 1 - len(self._image_ids))

    async def prompts(self, items: Sequence[Item]) -> list[Prompt | Fault]:
        """One prompt per item, or what is wrong with the item."""
        readings = [self._reading(item) for item in items]
        texts = [reading.text for reading in readings if isinstance(reading, _Reading)]
        loop = asyncio.get_running_loop()
        offsets = any(isinstance(reading, _Reading) and reading.chunk_starts for reading in readings)
        encodings: Sequence[Encoding | PromptError]
        try:
            if sum(map(len, texts)) <= _INLINE_CHARACTERS:
                encodings = self._encode(texts, offsets)
            else:
                encodings = await loop.run_in_executor(self._threads, self._encode, texts, offsets)
        except Exception:
            # The tokenizer does not say which text it was.
            encodings = await loop.run_in_executor(self._threads, self._encode_each, texts, offsets)
        next_encoding = iter(encodings)
        return [
            self._text_prompt(item, next(next_encoding), reading.chunk_starts)
            if isinstance(reading, _Reading)
            else reading
            for item, reading in zip(items, readings, strict=True)
        ]

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text; a character that is spread over several tokens shows as U+FFFD in each."""
        return self._tokenizer.decode_batch([[token] for token in token_ids], skip_special_tokens=False)

    def _reading(self, item: Item) -> "_Reading | Prompt | Fault":
        """What is to be tokenised of an item, or at once what comes of it.

        A text that is certainly too long is not tokenised whole, which takes a minute for tens of megabytes
        and holds up everybody's.
        """
        content = item.content
        if isinstance(content, Image):
            return Prompt(self._image_ids, content.data, _pooling(item, self._image_span))
        text, chunk_starts = _text_of(content)
        # One token more than fits, so that what is left of the text is still too long.
        longest = (self._max_tokens + 1) * self._reach
        if len(text) <= longest:
            return _Reading(text, chunk_starts)
        if not item.truncate:
            return TokenLimitError(
                f"the text has {len(text)} characters, prefix included: more than the {self._max_tokens} "
                "tokens that the model takes. Shorten it or set truncate."
            )
        if chunk_starts and chunk_starts[-1] >= self._max_tokens * self._reach:
            return TokenLimitError(
                f"part {len(chunk_starts) - 1} begins at character {chunk_starts[-1]}, behind the "
                f"{self._max_tokens} tokens that the model takes: send fewer parts"
            )
        return _Reading(text[:longest], chunk_starts)

    def _text_prompt(
        self, item: Item, encoding: Encoding | PromptError, chunk_starts: Sequence[int]
    ) -> Prompt | Fault:
        if isinstance(encoding, PromptError):
            return encoding
        token_ids: list[int] = encoding.ids
        over = len(token_ids) > self._max_tokens
        if over and not item.truncate:
            return TokenLimitError(
                f"the text has {len(token_ids)} tokens, prefix included; "
                f"the model takes {self._max_tokens}. Shorten it or set truncate."
            )
        if not chunk_starts:
            return Prompt(token_ids[: self._max_tokens], None, _pooling(item), 0 if over else None)
        token_starts = [start for start, _ in encoding.offsets]
        try:
            spans = spans_of(token_starts, chunk_starts, self._max_tokens)
        except EmptyChunkError as error:
            return error
        except ChunkCutError as error:
            return TokenLimitError(str(error))
        # What is over the limit lies in the last part: any later one would have been empty.
        cut = len(spans) - 1 if over else None
        return Prompt(token_ids[: self._max_tokens], None, _pooling(item, *spans), cut)

    def _encode(self, texts: list[str], offsets: bool = False) -> list[Encoding]:
        # Both release the GIL and spread a batch over the cores; the fast one keeps no offsets.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return encode(texts, add_special_tokens=False)

    def _encode_each(self, texts: list[str], offsets: bool) -> list[Encoding | PromptError]:
        encodings: list[Encoding | PromptError] = []
        for text in texts:
            try:
                encodings += self._encode([text], offsets)
            except Exception as error:
                logger.exception("a text of %d characters cannot be tokenised", len(text))
                encodings.append(PromptError(f"the text cannot be tokenised: {error}"))
        return encodings

    def _position(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None or token_id not in self._image_ids:
            raise ValueError(f"the tokenizer does not know {token}: not one of jina-embeddings-v4")
        return self._image_ids.index(token_id)


def _text_of(content: Text | Document) -> tuple[str, list[int]]:
    """What the tokens are of, and where the parts of a document begin in it."""
    if isinstance(content, Text):
        return PREFIXES[content.role] + content.text, []
    return join(PREFIXES[content.role], content.chunks)


def _pooling(item: Item, *spans: tuple[int, int]) -> PoolingSpec:
    if item.multivector or item.against is not None:
        # All tokens of the prompt, for images too.
        return PoolingSpec(multivector=True)
    return PoolingSpec(spans, item.dimensions, item.normalized)
