"""A query and a document as a cross-encoder reads them, and what a kind of cross-encoder has to say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from triptych.workers.shared.contract import Image, PoolName, Text

Content = Text | Image


class Pair(NamedTuple):
    """The token ids of one or more prompts, of which the best score counts.

    `images` are in the order of their placeholders in the only prompt; `query_image` is the index of the
    query's. `extra` is for vLLM. `cut` is true if the prompts do not hold all of the texts.
    """

    prompts: Sequence[list[int]]
    images: Sequence[bytes] = ()
    query_image: int | None = None
    extra: dict[str, Any] | None = None
    cut: bool = False


class Reader(Protocol):
    """How one kind of cross-encoder is started and reads pairs.

    `max_tokens` is the longest prompt, `images` whether it reads images.
    """

    folder: Path
    task: PoolName
    max_tokens: int
    images: bool
    engine_args: dict[str, Any]

    def pairs(self) -> Callable[[Content, Content], Pair]:
        """Makes the pairs of one batch, of a query and a document each; it is called in a thread.

        Raises `ItemError` for a pair that cannot be read.
        """
