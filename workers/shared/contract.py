"""The wire contract between router and worker: msgpack requests, a stream of msgpack frames back.

    POST /v1/encode    body: one msgpack `EncodeRequest`
                       reply: length-prefixed `Frame`s, one per item, in order of completion
    GET  /v1/info      JSON `Info`
    GET  /live, /ready 200 or 503
    GET  /metrics      Prometheus

A frame is four bytes of length (unsigned, little-endian) and that many bytes of msgpack. `Progress` frames
show that the engine works while no item is finished; a worker that sends no frames hangs. A reply that ends
early, for example because the engine died, was cut off: items without a frame have failed and may be retried.

Request headers: `x-request-ids` names some requests of the batch, for the worker's log. `traceparent` (W3C)
is the parent of the worker's span. `x-router` identifies the caller.

Reply headers: `x-vector-space` names pool and space of the vectors (`space_header`), which can change between
replies. `x-worker-state` explains an error:

    503 overloaded     over the worker's limit; the batch was not started. `x-worker-wait` is the number of
                       seconds until there should be room, which is then reserved for this caller
    503 draining       stopping, or out of service
    500 dead           the engine died before the first frame
    500 wrong          the worker found that its vectors are wrong, before the first frame

Routers and workers of different versions meet during an upgrade. So no field is removed. New fields have
defaults, and defaults are not sent. A worker refuses a batch with a field that it does not know, since its
vectors would be wrong. So workers should be upgraded first. They send new kinds of frames and failures only
in reply to new fields.

Does not import torch or vllm, because the router imports it.
"""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Literal

import msgspec

ENCODE_PATH = "/v1/encode"
INFO_PATH = "/v1/info"
LIVE_PATH = "/live"
READY_PATH = "/ready"
METRICS_PATH = "/metrics"
STATE_HEADER = "x-worker-state"
SPACE_HEADER = "x-vector-space"
WAIT_HEADER = "x-worker-wait"
ROUTER_HEADER = "x-router"
REQUESTS_HEADER = "x-request-ids"
OVERLOADED = "overloaded"
DRAINING = "draining"
DEAD = "dead"
WRONG = "wrong"
MAX_FRAME_BYTES = 1 << 28

PoolName = str
"""The name of a pool, such as `retrieval` or `v3.base`; `triptych.workers.shared.families` checks it."""

POOLS: tuple[PoolName, ...] = ("retrieval", "text-matching", "code")
"""The pools of jina-embeddings-v4."""

Role = Literal["query", "passage", "plain"]
"""What a text is; chooses its prefix. A `plain` text has no prefix in any family."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Space = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z_]+$", max_length=64)]

FailureCode = Literal["token_limit", "media_invalid", "invalid", "unsupported", "internal"]


class _RequestPart(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of a batch and of its parts."""


class Text(_RequestPart, frozen=True, tag="text"):
    """A text without its prefix; the worker adds the prefix of `role`."""

    text: str
    role: Role


class Image(_RequestPart, frozen=True, tag="image"):
    """An encoded image (PNG, JPEG, WebP, GIF)."""

    data: bytes


class Document(_RequestPart, frozen=True, tag="document"):
    """Consecutive chunks of one text (late chunking): read together, one vector for each.

    The worker joins them, with a space where neither side has white space, and adds the prefix of `role`.
    """

    chunks: tuple[str, ...]
    role: Role


class Item(_RequestPart, frozen=True):
    """One input to encode.

    `dimensions` cuts the vector to that many values before it is normalized (None: all of them).
    `multivector` returns one vector per token instead of their mean; not for a document.
    `truncate` cuts a text that is longer than the context; without it such a text fails.
    `tokenized` also returns the text of each token.
    `against` is the index of a query of the batch: returns the score of the content for that query instead of
    a vector. `adapter` names the adapter for the content and its query, in an engine that holds several;
    others refuse it.
    """

    content: Text | Image | Document
    dimensions: int | None = None
    multivector: bool = False
    normalized: bool = True
    truncate: bool = False
    tokenized: bool = False
    against: int | None = None
    adapter: str | None = None


class EncodeRequest(_RequestPart, frozen=True):
    """A batch. A lower `priority` goes first (0 interactive, 1 bulk).

    `queries` are scored against items (`Item.against`); each is sent and encoded once. `alone` asks the
    worker to run nothing else at the same time, because the batch may have killed another worker.
    """

    items: list[Item]
    priority: int = 0
    queries: list[Text | Image] = []
    alone: bool = False

    def __post_init__(self) -> None:
        indices = [item.against for item in self.items if item.against is not None]
        if indices and not 0 <= min(indices) <= max(indices) < len(self.queries):
            raise ValueError(f"`against` must be the index of one of the {len(self.queries)} queries")


class Vector(msgspec.Struct, frozen=True, tag="vector", omit_defaults=True):
    """An item's result: `data` is little-endian float32 of `shape`.

    The shape is [d] for a text or an image, [chunks, d] for a document, [tokens, 128] for a multi-vector, [1]
    for a score. `index` is the item's index in the batch, `tokens` its length with the prefix, `query_tokens`
    the length of its query, which is encoded once per batch. `cut` is the chunk (0 for a text) that was
    truncated, or None. `tokenized` is the text of each token, if the item asked for it.
    """

    index: int
    tokens: Size
    shape: tuple[int, ...]
    data: bytes
    cut: Count | None = None
    tokenized: list[str] | None = None
    query_tokens: Count = 0


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The error of one item; the others are not affected. Only `internal` may be retried.

    `query` is true if the item's query is to blame.
    """

    index: int
    code: FailureCode
    message: str
    query: bool = False


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """The engine made steps since the last frame."""


Frame = Vector | Failure


class Info(msgspec.Struct, frozen=True):
    """What a worker serves.

    `space` identifies the vector space (`triptych.workers.checkpoints.space`), `instance` the worker process.
    `dimensions` is the length of an uncut vector. `multivector_dimensions` is None without a projector,
    `revision` if unknown. `max_tokens` is the longest input, `batch_tokens` the largest engine step.
    """

    task: PoolName
    model: str
    space: Space
    instance: str
    revision: str | None
    dimensions: Size
    multivector_dimensions: Size | None
    max_tokens: Size
    batch_tokens: Size
    versions: dict[str, str]


@lru_cache
def adapter_space(space: str, adapter: str | None) -> str:
    """The vector space of one adapter, in an engine that holds several and serves `space`.

    Without an adapter it is `space` itself.
    """
    return space if adapter is None else sha256(f"{space} {adapter}".encode()).hexdigest()[: len(space)]


def space_header(task: PoolName, space: str) -> str:
    """The value of `SPACE_HEADER`, in replies of workers and routers."""
    return f"{task}={space}"


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(EncodeRequest).decode
encode_info = msgspec.json.Encoder().encode
decode_info = msgspec.json.Decoder(Info).decode

_frame_encoder = msgspec.msgpack.Encoder()
_decode_frame = msgspec.msgpack.Decoder(Frame | Progress).decode


def encode_frame(frame: Frame | Progress) -> bytes:
    """One length-prefixed frame."""
    buffer = bytearray(4)
    _frame_encoder.encode_into(frame, buffer, 4)
    buffer[:4] = (len(buffer) - 4).to_bytes(4, "little")
    return bytes(buffer)


class FrameReader:
    """Decodes frames from a byte stream in pieces of any size.

    Raises `msgspec.DecodeError` (or its `ValidationError`) if the stream breaks this contract.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each result that `data` completes. Progress frames are skipped."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                size = int.from_bytes(buffer[start : start + 4], "little")
                if size > MAX_FRAME_BYTES:
                    raise msgspec.DecodeError(f"a frame of {size} bytes exceeds the limit")
                end = start + 4 + size
                if len(buffer) < end:
                    break
                frame = _decode_frame(buffer[start + 4 : end])
                start = end
                if not isinstance(frame, Progress):
                    yield frame
        finally:
            del buffer[:start]
