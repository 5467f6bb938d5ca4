"""From an item to what the engine reads: prefix, token ids, and which tokens to pool.

The prompts are the model's own (modeling_jina_embeddings_v4.py): `Query: ` or `Passage: ` before a text,
no BOS and no EOS; one fixed prompt around an image, averaged from vision_start to vision_end inclusive.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tokenizers import Tokenizer

from workers.contract import Image, Item, Text
from workers.images import ImageError, PillowImage, decode_image
from workers.plugin.spec import PoolingSpec

PREFIXES = {"query": "Query: ", "passage": "Passage: "}
IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"

# Tokenising this many characters takes less time than handing them to a thread and back.
_INLINE_CHARACTERS = 400


class TokenLimitError(ValueError):
    """A text is longer than the context and was not to be cut."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, the image that belongs to their placeholder if any, and what to pool."""

    token_ids: list[int]
    image: PillowImage | None
    pooling: PoolingSpec


class Prompter:
    """Makes prompts of items, a batch at a time, without holding up the event loop.

    Raises `ValueError` from the constructor when the tokenizer lacks the model's special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="prompts")
        self._image_ids: list[int] = self._tokenise([IMAGE_PROMPT])[0]
        start, end = (self._position(token) for token in ("<|vision_start|>", "<|vision_end|>"))
        self._image_span = (start, end + 1 - len(self._image_ids))

    async def prompts(self, items: Sequence[Item]) -> list[Prompt | TokenLimitError | ImageError]:
        """One prompt per item, or what is wrong with the item."""
        texts = [
            PREFIXES[item.content.role] + item.content.text
            for item in items
            if isinstance(item.content, Text)
        ]
        images = [item.content for item in items if isinstance(item.content, Image)]
        loop = asyncio.get_running_loop()
        decoded = [loop.run_in_executor(self._threads, _decode, image) for image in images]
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            token_ids = self._tokenise(texts)
        else:
            token_ids = await loop.run_in_executor(self._threads, self._tokenise, texts)
        next_ids, next_image = iter(token_ids), iter(decoded)
        return [
            self._text_prompt(item, next(next_ids))
            if isinstance(item.content, Text)
            else self._image_prompt(item, await next(next_image))
            for item in items
        ]

    def _text_prompt(self, item: Item, token_ids: list[int]) -> Prompt | TokenLimitError:
        if len(token_ids) > self._max_tokens:
            if not item.truncate:
                return TokenLimitError(
                    f"the text has {len(token_ids)} tokens, prefix included; "
                    f"the model takes {self._max_tokens}. Shorten it or set truncate."
                )
            token_ids = token_ids[: self._max_tokens]
        return Prompt(token_ids, None, _pooling(item))

    def _image_prompt(self, item: Item, image: PillowImage | ImageError) -> Prompt | ImageError:
        if isinstance(image, ImageError):
            return image
        return Prompt(self._image_ids, image, _pooling(item, self._image_span))

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        # Releases the GIL and spreads a batch over the cores.
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _position(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None or token_id not in self._image_ids:
            raise ValueError(f"the tokenizer does not know {token}: not one of jina-embeddings-v4")
        return self._image_ids.index(token_id)


def _pooling(item: Item, *spans: tuple[int, int]) -> PoolingSpec:
    if item.multivector:
        # All tokens of the prompt, for images too.
        return PoolingSpec(multivector=True)
    return PoolingSpec(spans, item.dimensions, item.normalized)


def _decode(image: Image) -> PillowImage | ImageError:
    try:
        return decode_image(image.data)
    except ImageError as error:
        return error
