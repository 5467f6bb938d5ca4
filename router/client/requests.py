"""From arguments to requests (pure): changes when a field of the API does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import orjson

from router.client.images import Image
from router.client.surrogates import without_lone_surrogates

if TYPE_CHECKING:
    from router.api.schema import Task

# The most that one request may hold; longer lists are sent as several.
MAX_ITEMS = 512
# The same of its body. The server takes 64 MiB unless told otherwise; the rest is for what is not counted.
MAX_BYTES = 48 << 20

Item = str | Image | Mapping[str, Any]
"""One input: a text, an image, or an item as the API writes it, such as `{"text": ..., "task": ...}`."""
Inputs = Item | Iterable[Item]
Priority = Literal["interactive", "bulk"]


class MultiOptions(TypedDict, total=False):
    """How to embed; what is left out is the server's default."""

    task: "Task | None"
    """What the vectors are for; text-matching by default."""
    truncate: bool | None
    """Cut a text that is longer than the context, rather than refuse it."""
    priority: Priority | None
    """Who waits for whom when the server is busy; by default large requests wait for small ones."""
    vector_space: str | None
    """Take vectors of this space only, as `x-vector-space` of a reply names it; else `SpaceMismatch`."""


class EmbedOptions(MultiOptions, total=False):
    """How to embed into one vector for each input; what is left out is the server's default."""

    dimensions: int | None
    """Values in each vector, 1 to 2048 (the default); a shorter one is cut, then normalised again."""
    normalized: bool | None
    """Vectors of length 1 (the default), or the mean as it is (False)."""
    late_chunking: bool | None
    """The texts are parts of one document, each embedded in the context of all; at most 512 of them."""


class Call(NamedTuple):
    """One HTTP request; `body` is JSON."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}


class Part(NamedTuple):
    """What one request will embed, and how many vectors that gives: None where a PDF leaves it open."""

    content: Item | list[Item]
    vectors: int | None


MODELS = Call("GET", "/v1/models")
READY = Call("GET", "/ready")


def parts(inputs: Inputs, late_chunking: bool | None = None) -> list[Part]:
    """`inputs` in pieces that one request can hold, in order.

    Raises TypeError for what is no input, ValueError when there is none or too many for late chunking, and
    OSError for a file that is not there.
    """
    if isinstance(inputs, str | Image | Mapping):
        return [_part(inputs, [inputs])]
    if isinstance(inputs, bytes | bytearray) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs: {_WHAT_AN_INPUT_IS}, or an iterable of these; not {type(inputs).__name__}")
    items = list(inputs)
    for index, item in enumerate(items):
        if not isinstance(item, str | Image | Mapping):
            raise TypeError(f"inputs[{index}]: {_WHAT_AN_INPUT_IS}; not {type(item).__name__}")
    if not items:
        raise ValueError("inputs is empty: there is nothing to embed")
    if late_chunking and len(items) > MAX_ITEMS:
        # Cut in two, each half would be embedded without the context of the other.
        raise ValueError(f"late chunking takes at most {MAX_ITEMS} inputs, here are {len(items)}")
    return [_part(piece, piece) for piece in ([items] if late_chunking else _pieces(items))]


_WHAT_AN_INPUT_IS = "a string, an Image (for bytes: Image.from_bytes), or an item as a dict"


def _pieces(items: Sequence[Item]) -> Iterator[list[Item]]:
    """`items` in lists of at most `MAX_ITEMS` and `MAX_BYTES`; one that is over the latter goes alone."""
    piece: list[Item] = []
    size = 0
    for item in items:
        more = _length(item)
        if piece and (len(piece) == MAX_ITEMS or size + more > MAX_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += more
    yield piece


def _length(value: Any) -> int:
    """About how many bytes of a body `value` takes; files are not read."""
    match value:
        case Image():
            return value.wire_length()
        case Mapping():
            return sum(map(_length, value.values()))
        case _:
            return len(_dumps(value))


def _part(content: Item | list[Item], items: Sequence[Item]) -> Part:
    has_pdf = any(isinstance(item, Mapping) and "pdf" in item for item in items)
    return Part(content, None if has_pdf else len(items))


def embed_call(
    part: Part,
    *,
    task: "Task | None" = None,
    dimensions: int | None = None,
    truncate: bool | None = None,
    normalized: bool | None = None,
    late_chunking: bool | None = None,
    priority: Priority | None = None,
    vector_space: str | None = None,
    multivector: bool = False,
) -> Call:
    """`POST /v1/embeddings` for one part, with vectors as base64, which carries every bit of a float."""
    content = part.content
    fields = {
        "input": [_wire(item) for item in content] if isinstance(content, list) else _wire(content),
        "embedding_type": "base64",
        "task": task,
        "dimensions": dimensions,
        "truncate": truncate,
        "normalized": normalized,
        "late_chunking": late_chunking,
        "return_multivector": multivector or None,
    }
    headers = {"x-priority": priority, "x-require-vector-space": vector_space}
    sent = {name: value for name, value in headers.items() if value is not None}
    return Call("POST", "/v1/embeddings", _json(fields), sent)


def rerank_call(query: Item, documents: Sequence[Item], top_n: int | None = None) -> Call:
    """`POST /v1/rerank`. The documents do not come back: whoever asks has them."""
    if not documents:
        raise ValueError("documents is empty: there is nothing to rank")
    fields = {
        "query": _wire(query),
        "documents": [_wire(document) for document in documents],
        "top_n": top_n,
        "return_documents": False,
    }
    return Call("POST", "/v1/rerank", _json(fields))


def _wire(item: Item) -> str | dict[str, Any]:
    match item:
        case str(text):
            # The server takes a bare string that is a data URI for an image.
            return {"text": text} if text[:5].lower() == "data:" else text
        case Image():
            return {"image": item.on_the_wire()}
        case _:
            return {
                key: value.on_the_wire() if isinstance(value, Image) else value for key, value in item.items()
            }


def _json(fields: Mapping[str, Any]) -> bytes:
    return _dumps({name: value for name, value in fields.items() if value is not None})


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # It refuses lone surrogates, which UTF-8 has no bytes for.
        return orjson.dumps(without_lone_surrogates(value))
