"""The frames of a fake worker: vectors derived from the input, and what its mode makes of them."""

import hashlib
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from triptych.workers.shared import contract

Mode = Literal[
    "healthy",
    "held",  # answers once `gate` is set
    "slow",  # answers after `delay` seconds
    "error",  # 500
    "flaky",  # 500 for a third of the batches, chosen by `seed`
    "unavailable",  # 503 of a proxy, without our state header
    "overloaded",
    "draining",
    "rejecting",  # 400
    "hanging",  # never answers
    "hanging in the body",  # sends one frame, and then hangs
    "cut",  # drops the connection in the middle of a frame
    "short",  # one frame is missing, and the reply ends properly
    "reset",  # drops the connection
    "garbage",  # bytes that are not frames
    "not finite",
    "wrong index",
    "same index twice",
    "endless",  # sends every frame, but does not end the reply
]

# Failures of a whole batch that are retried.
FAILING: list[Mode] = [
    "error",
    "unavailable",
    "hanging",
    "hanging in the body",
    "cut",
    "short",
    "reset",
    "garbage",
    "not finite",
    "wrong index",
]

# A text that begins with this is over the context, and cut if the item allows it.
LONG = "!long"

# A text that begins with `!` and one of these codes fails its item; a query, each of its documents.
FAILURES: tuple[contract.FailureCode, ...] = ("token_limit", "media_invalid", "unsupported", "internal")


# The vector space of a worker that is given no other.
SPACE = "0" * 16


def source(pool: str, space: str) -> str:
    """What the vectors of `pool` are derived from; those of two spaces differ."""
    return pool if space == SPACE else f"{pool} {space}"


@lru_cache(maxsize=4096)
def vector_of(
    pool: str, item: contract.Item, dimensions: int, query: contract.Text | contract.Image | None = None
) -> contract.Vector:
    """The vector (index 0) of `item` in `pool`, different for each input; with `query`, its score."""
    source = _source(item.content)
    tokens = max(1, len(source) // 4)
    if query is not None:
        source += b"|" + _source(query)
    seed = int.from_bytes(hashlib.sha256(f"{pool}|".encode() + source).digest()[:8], "little")
    generator = np.random.default_rng(seed)
    if query is not None:
        score = np.float32(generator.uniform(-1, 1))
        query_tokens = max(1, len(_source(query)) // 4)
        return contract.Vector(0, tokens, (1,), score.tobytes(), query_tokens=query_tokens)
    size: tuple[int, ...] = (item.dimensions or dimensions,)
    if item.multivector:
        size = (tokens, 128)
    elif isinstance(item.content, contract.Document):
        size = (len(item.content.chunks), *size)
    values = generator.standard_normal(size).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    texts = [f"<{number}>" for number in range(tokens)] if item.tokenized else None
    cut = _first_long(item.content) if item.truncate else None
    return contract.Vector(0, tokens, size, values.tobytes(), cut, texts)


def query_of(item: contract.Item, batch: contract.EncodeRequest) -> contract.Text | contract.Image | None:
    """The query that `item` is scored against."""
    return None if item.against is None else batch.queries[item.against]


def _first_long(content: contract.Text | contract.Image | contract.Document) -> int | None:
    texts = content.chunks if isinstance(content, contract.Document) else (getattr(content, "text", ""),)
    return next((number for number, text in enumerate(texts) if text.startswith(LONG)), None)


def _source(content: contract.Text | contract.Image | contract.Document) -> bytes:
    match content:
        case contract.Image():
            return content.data
        case contract.Text():
            return f"{content.role}|{content.text}".encode()
        case contract.Document():
            return "|".join([content.role, *content.chunks]).encode()


def frame_of(pool: str, dimensions: int, batch: contract.EncodeRequest, index: int, mode: Mode) -> bytes:
    """The frame of one item of `batch`, damaged if `mode` says so."""
    item = batch.items[index]
    query = query_of(item, batch)
    for code in FAILURES:
        for content in (item.content, query):
            if isinstance(content, contract.Text) and content.text.startswith(f"!{code}"):
                failure = contract.Failure(index, code, f"the worker says {code}", content is query)
                return contract.encode_frame(failure)
    vector = vector_of(pool, item, dimensions, query)
    data = vector.data
    match mode:
        case "not finite":
            data = data[:-4] + np.float32("nan").tobytes()
        case "wrong index":
            index += 1000
    return contract.encode_frame(msgspec.structs.replace(vector, index=index, data=data))


def text_of(item: contract.Item) -> str:
    """The text of an item; empty for images and documents."""
    return item.content.text if isinstance(item.content, contract.Text) else ""
