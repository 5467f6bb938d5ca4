"""The wire between router and worker: msgpack structs in, a stream of frames out.

    POST /v1/encode    body: one msgpack `EncodeRequest`
                       reply: length-prefixed `Frame`s, one per item, in the order of completion
    GET  /v1/info      JSON `Info`
    GET  /live, /ready 200 or 503
    GET  /metrics      for Prometheus

A frame is four bytes of length (unsigned, little-endian) and that many bytes of msgpack. While no item is
finished, `Progress` frames say that the engine makes steps; a worker that sends neither hangs. A reply that
ends before every item has its frame was cut off: what is missing has failed and may be tried again. So ends
a batch whose engine has died.
A batch's `x-request-ids` names some of the requests that it is of, for the worker's log; `traceparent` (W3C),
where it is there, is the parent of the worker's span.
The reply's `x-vector-space` names the pool and the space of its vectors (`space_header`): a worker may serve
others than when it was last asked.
A worker over its own limit answers 503 with `x-worker-state: overloaded`; nothing of the batch was done
and the replica has not failed. `x-worker-wait` says after how many seconds there should be room. It is then
kept for a while for the same caller, which is known by its `x-router`.
A worker that is stopping, or out of service, answers 503 with `x-worker-state: draining`.
A batch whose engine has died before its first frame is answered 500 with `x-worker-state: dead`; one whose
vectors the worker itself does not trust any more, with `wrong`.

Imports neither torch nor vllm, so that the router can.
"""

from collections.abc import Iterator
from typing import Literal

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

PoolName = Literal["retrieval", "text-matching", "code", "rerank"]
POOLS: tuple[PoolName, ...] = ("retrieval", "text-matching", "code")
"""The pools of merged variants; `rerank` is that of a cross-encoder, where there is one."""

Role = Literal["query", "passage"]
FailureCode = Literal["token_limit", "media_invalid", "invalid", "unsupported", "internal"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A text without its prefix; the worker adds the one of its role."""

    text: str
    role: Role


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An encoded image (PNG, JPEG, WebP, GIF) as it came, not decoded."""

    data: bytes


class Document(msgspec.Struct, frozen=True, tag="document"):
    """Consecutive parts of one text (late chunking): read together, one vector for each.

    The worker joins them with a space where neither neighbour has white space, and puts the prefix of the
    role before the first.
    """

    chunks: tuple[str, ...]
    role: Role


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to embed.

    `dimensions` cuts the vector to that many values before it is normalised (None: all of them).
    `multivector` asks for one vector per token instead of their mean; not for a document.
    `truncate` cuts a text that is longer than the context instead of failing it.
    `tokenized` asks for the tokens' text beside the vectors.
    `against` is the place of a query among those of the batch: asks for how well the content answers it
    instead of any vector of its own.
    """

    content: Text | Image | Document
    dimensions: int | None = None
    multivector: bool = False
    normalized: bool = True
    truncate: bool = False
    tokenized: bool = False
    against: int | None = None


class EncodeRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch. `priority` is the engine's: lower goes first (0 interactive, 1 bulk).

    `alone` asks for the worker to have nothing else meanwhile: the batch may be what ended another.
    `queries` are what some of the items are held against: each is sent and read once, however many those are.
    """

    items: list[Item]
    priority: int = 0
    queries: list[Text | Image] = []
    alone: bool = False

    def __post_init__(self) -> None:
        places = [item.against for item in self.items if item.against is not None]
        if places and not 0 <= min(places) <= max(places) < len(self.queries):
            raise ValueError(f"an item is held against another query than the {len(self.queries)} there are")


class Vector(msgspec.Struct, frozen=True, tag="vector", omit_defaults=True):
    """An item's result: `data` is little-endian float32 of `shape`.

    That is [d] for a text or an image, [chunks, d] for a document, [tokens, 128] for a multi-vector, [1]
    for a score against a query. `index` is the item's place in the batch; `tokens` counts what the engine
    read of it, prefix included, `query_tokens` what it read of the query, which is read once a batch.
    `cut` is the chunk (0 for a text) that lost tokens to `truncate`, None when nothing was cut.
    `tokenized` holds each token's text where the item asked for it.
    """

    index: int
    tokens: int
    shape: tuple[int, ...]
    data: bytes
    cut: int | None = None
    tokenized: list[str] | None = None
    query_tokens: int = 0


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """An item's own error; its neighbours are not touched. Only `internal` may be tried again."""

    index: int
    code: FailureCode
    message: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A sign of life between results: the engine's `steps` so far, more than in the last such frame."""

    steps: int


Frame = Vector | Failure


class Info(msgspec.Struct, frozen=True):
    """What a worker serves. Lengths in tokens, `dimensions` of the full vector.

    `space` identifies the vectors (`workers.checkpoints.space`), `instance` the worker's process.
    `multivector_dimensions` is None where the checkpoint has no projector, `revision` where the checkpoint
    does not say. `batch_tokens` is what one engine step takes at most.
    """

    task: PoolName
    model: str
    space: str
    instance: str
    revision: str | None
    dimensions: int
    multivector_dimensions: int | None
    max_tokens: int
    batch_tokens: int
    versions: dict[str, str]


def space_header(task: PoolName, space: str) -> str:
    """The value of `SPACE_HEADER`, as routers write it too."""
    return f"{task}={space}"


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(EncodeRequest).decode
encode_info = msgspec.json.Encoder().encode
decode_info = msgspec.json.Decoder(Info).decode

_frame_encoder = msgspec.msgpack.Encoder()
_decode_frame = msgspec.msgpack.Decoder(Frame | Progress).decode


def encode_frame(frame: Frame | Progress) -> bytes:
    """One frame with its length in front."""
    buffer = bytearray(4)
    _frame_encoder.encode_into(frame, buffer, 4)
    buffer[:4] = (len(buffer) - 4).to_bytes(4, "little")
    return bytes(buffer)


class FrameReader:
    """Cuts a byte stream, fed in pieces of any size, back into frames.

    Raises `msgspec.DecodeError` (or its `ValidationError`) when the stream is not of this contract.
    """

    def __init__(self, max_frame_bytes: int = 1 << 28) -> None:
        self._buffer = bytearray()
        self._max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each result that `data` completes. Progress only keeps the stream from being silent."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                size = int.from_bytes(buffer[start : start + 4], "little")
                if size > self._max_frame_bytes:
                    raise msgspec.DecodeError(f"a frame of {size} bytes is over the limit")
                end = start + 4 + size
                if len(buffer) < end:
                    break
                frame = _decode_frame(buffer[start + 4 : end])
                start = end
                if not isinstance(frame, Progress):
                    yield frame
        finally:
            del buffer[:start]
