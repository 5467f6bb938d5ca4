"""Prompts: token ids of an item, prefix included, and the tokens to pool.

The prompts are the model's own: a prefix for the role before a text, and around both the tokenizer's special
tokens if the model was trained with them. An image has one fixed prompt (`modeling_jina_embeddings_v4.py`),
pooled from vision_start to vision_end inclusive.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from triptych.workers.chunks import join, spans_of
from triptych.workers.item_error import ItemError
from triptych.workers.plugin.pooling_spec import PoolingSpec, Span
from triptych.workers.shared.contract import Document, Image, Item, Role, Text
from triptych.workers.shared.families import V4, Family

logger = logging.getLogger(__name__)

IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"

# Below this many characters, tokenizing takes less time than a thread switch.
_INLINE_CHARACTERS = 400
# The tokenizer uses some 300 bytes for each character, so it gets about this many at a time.
_CHARACTERS_AT_ONCE = 1 << 19
# A text of more characters than this per token of the context is long. Only its beginning is tokenized.
_LONG_CHARACTERS = 8
# Tokens of a long text beyond the context. The place of the cut changes only the last of them.
_MARGIN_TOKENS = 1024


class Prompt(NamedTuple):
    """Token ids, the encoded image for their placeholder if there is one, and what to pool.

    `cut` is the chunk (0 for a text) that was truncated, None if nothing was. `adapter` is the item's.
    """

    token_ids: list[int]
    image: bytes | None
    pooling: PoolingSpec
    cut: int | None = None
    adapter: str | None = None


class _Reading(NamedTuple):
    """A text to tokenize, and where the chunks of a document begin in it (empty for a text)."""

    prefix: str
    text: str
    chunk_starts: list[int]

    @classmethod
    def of(cls, content: Text | Document, prefixes: Mapping[Role, str]) -> "_Reading":
        if isinstance(content, Text):
            return cls(prefixes[content.role], content.text, [])
        return cls("", *join(prefixes[content.role], content.chunks))

    def beginning(self, characters: int) -> str:
        # The prefix is added here: adding it to 60 MB would block the event loop.
        return self.prefix + self.text[:characters]


class Prompter:
    """Tokenizes batches of items without blocking the event loop.

    Disables the padding and truncation of `tokenizer`. Raises `ValueError` if it lacks the tokens of the
    model's image prompt.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, family: Family = V4) -> None:
        # The tokenizer's file may hold values for training.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._family = family
        self._max_tokens = max_tokens
        self._before, self._after = _special_ids(tokenizer) if family.special_tokens else ([], [])
        # Special tokens are kept when a text is cut.
        self._room = max_tokens - len(self._before) - len(self._after)
        self._enough_tokens = max_tokens + _MARGIN_TOKENS
        self._long = max_tokens * _LONG_CHARACTERS
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="prompts")
        # One batch at a time, because a long text takes much memory, and for seconds.
        self._long_thread = ThreadPoolExecutor(1, thread_name_prefix="long-prompts")
        if family.images:
            self._image_ids: list[int] = self._encode([IMAGE_PROMPT])[0].ids
            start, end = (self._position(token) for token in ("<|vision_start|>", "<|vision_end|>"))
            self._image_span = (start, end + 1 - len(self._image_ids))

    async def prompts(self, items: Sequence[Item]) -> list[Prompt | ItemError]:
        lengths = [_characters(item) for item in items]
        if sum(lengths) <= _INLINE_CHARACTERS:
            return self._prompts(items)
        threads = self._long_thread if max(lengths) > self._long else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self._prompts, items)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; U+FFFD for each part of a character that spans several tokens."""
        return self._tokenizer.decode_batch([[token] for token in token_ids], skip_special_tokens=False)

    def _prompts(self, items: Sequence[Item]) -> list[Prompt | ItemError]:
        """The prompts of `items`, made in groups of about `_CHARACTERS_AT_ONCE` characters."""
        ends = accumulate(map(_characters, items))
        made: list[Prompt | ItemError] = []
        for _, group in groupby(items, lambda _: next(ends) // _CHARACTERS_AT_ONCE):
            made += self._prompts_at_once([*group])
        return made

    def _prompts_at_once(self, items: Sequence[Item]) -> list[Prompt | ItemError]:
        prefixes = self._family.prefixes
        readings = [
            _Reading.of(item.content, prefixes) for item in items if not isinstance(item.content, Image)
        ]
        try:
            texts = zip(readings, self._encode_beginnings(readings), strict=True)
        except Exception as error:
            # The tokenizer does not say which text failed.
            if len(items) > 1:
                return [prompt for item in items for prompt in self._prompts_at_once([item])]
            logger.exception("cannot tokenize a text of %d characters", len(readings[0].text))
            return [ItemError("internal", f"the text cannot be tokenized: {error}")]
        return [
            self._image_prompt(item, item.content)
            if isinstance(item.content, Image)
            else self._text_prompt(item, *next(texts))
            for item in items
        ]

    def _image_prompt(self, item: Item, image: Image) -> Prompt | ItemError:
        if not self._family.images:
            return ItemError("unsupported", f"{self._family.name} does not read images")
        return Prompt(self._image_ids, image.data, _pooling(item, self._image_span), adapter=item.adapter)

    def _text_prompt(self, item: Item, reading: _Reading, encoding: Encoding) -> Prompt | ItemError:
        over = len(encoding) > self._room
        if over and not item.truncate:
            return ItemError(
                "token_limit",
                f"the text of {len(reading.text)} characters has over {self._max_tokens} tokens, the limit, "
                "prefix included. Shorten it or set truncate.",
            )
        spans = []
        if reading.chunk_starts:
            if not self._family.late_chunking:
                return ItemError("unsupported", f"{self._family.name} has no late chunking")
            starts = [start for start, _ in encoding.offsets]
            try:
                spans = self._around(spans_of(starts, reading.chunk_starts, self._room))
            except ItemError as error:
                return error
        # `spans_of` refuses chunks behind the limit, so only the last one can be cut.
        cut = max(0, len(spans) - 1) if over else None
        token_ids = [*self._before, *encoding.ids[: self._room], *self._after]
        return Prompt(token_ids, None, _pooling(item, *spans), cut, item.adapter)

    def _around(self, spans: list[Span]) -> list[Span]:
        """Spans of a text as spans of its prompt: the first and last include the special tokens."""
        before = len(self._before)
        (start, _), (_, end) = spans[0], spans[-1]
        edges = [start, *(start + before for start, _ in spans[1:]), end + before + len(self._after)]
        return list(pairwise(edges))

    def _encode_beginnings(self, readings: Sequence[_Reading]) -> list[Encoding]:
        """Tokenize texts; of a long one only so much that `_enough_tokens` are known."""
        offsets = any(reading.chunk_starts for reading in readings)
        encodings = self._encode([reading.beginning(self._long) for reading in readings], offsets)
        for number, reading in enumerate(readings):
            size = self._long
            while size < len(reading.text) and len(encodings[number]) < self._enough_tokens:
                size *= 1 + self._enough_tokens // max(1, len(encodings[number]))
                [encodings[number]] = self._encode([reading.beginning(size)], offsets)
        return encodings

    def _encode(self, texts: list[str], offsets: bool = False) -> list[Encoding]:
        # Both release the GIL and use several cores; the fast one keeps no offsets.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return encode(texts, add_special_tokens=False)

    def _position(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None or token_id not in self._image_ids:
            raise ValueError(f"the tokenizer has no token {token}: it is not one of jina-embeddings-v4")
        return self._image_ids.index(token_id)


def _special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The token ids that the tokenizer adds before and after a text."""
    encoding = tokenizer.encode("a")
    first, end = (
        mask.index(0) for mask in (encoding.special_tokens_mask, encoding.special_tokens_mask[::-1])
    )
    return encoding.ids[:first], encoding.ids[len(encoding.ids) - end :]


def _characters(item: Item) -> int:
    match item.content:
        case Text(text=text):
            return len(text)
        case Document(chunks=chunks):
            return sum(map(len, chunks))
        case _:
            return 0


def _pooling(item: Item, *spans: tuple[int, int]) -> PoolingSpec:
    if item.multivector or item.against is not None:
        # All tokens of the prompt, also for images.
        return PoolingSpec(multivector=True, adapter=item.adapter)
    return PoolingSpec(spans, item.dimensions, item.normalized)
