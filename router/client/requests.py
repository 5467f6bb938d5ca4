"""Builds requests from arguments (no I/O, except reading image files)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import orjson

from triptych.router.client.images import Image

# Most inputs of one request. Longer lists are sent as several requests.
MAX_ITEMS = 512
# Largest body, as estimated here. The server accepts 64 MiB by default.
MAX_BYTES = 48 << 20

Item = str | Image | Mapping[str, Any]
"""One input: a text, an image, or an item of the API, such as `{"text": ..., "task": ...}`."""
Inputs = Item | Iterable[Item]
Task = Literal[
    "text-matching",
    "retrieval.query",
    "retrieval.passage",
    "code.query",
    "code.passage",
    "classification",
    "clustering",
    "separation",
]
"""The tasks of all models; each model has some of them."""
TASKS: tuple[Task, ...] = get_args(Task)
Priority = Literal["interactive", "bulk"]


class MultiOptions(TypedDict, total=False):
    """Options of `embed_multi`. The server has the defaults."""

    model: str | None
    """The model; by default the first one that is served."""
    task: Task | None
    """The task; the default depends on the model (jina-embeddings-v4: text-matching)."""
    truncate: bool | None
    """Truncate a text that is longer than the context, instead of refusing it."""
    priority: Priority | None
    """The class under load. By default, large requests wait for small ones."""
    vector_space: str | None
    """Accept only vectors of this space, as a reply's `x-vector-space` names it; else `SpaceMismatch`."""


class EmbedOptions(MultiOptions, total=False):
    """Options of `embed`. The server has the defaults."""

    dimensions: int | None
    """Values per vector; by default all. A shorter vector is truncated and normalized again."""
    normalized: bool | None
    """Vectors of length 1 (the default), or with the length that the model gives them (False)."""
    late_chunking: bool | None
    """The texts are parts of one document, each embedded in the context of all. At most 512."""


class Call(NamedTuple):
    """One HTTP request; `body` is JSON."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}


MODELS = Call("GET", "/v1/models")
READY = Call("GET", "/ready")


def parts(inputs: Inputs, late_chunking: bool | None = None) -> list[list[Item]]:
    """Split `inputs` into the inputs of each request, in order.

    Raises TypeError for an invalid input, ValueError if it has no or too many inputs for late chunking, and
    OSError for a missing file.
    """
    items = checked([inputs] if isinstance(inputs, str | Image | Mapping) else inputs, "inputs")
    if late_chunking and len(items) > MAX_ITEMS:
        # In two requests, each half would lose the context of the other.
        raise ValueError(f"late chunking takes at most {MAX_ITEMS} inputs, not {len(items)}")
    return [items] if late_chunking else list(_pieces(items))


def checked(items: Iterable[Item], name: str) -> list[Item]:
    """`items` as a list. Raises TypeError if one is invalid, ValueError if it is empty."""
    valid = "a string, an Image (for bytes: Image.from_bytes), or an item as a dict"
    if isinstance(items, str | bytes | bytearray | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"{name}: an iterable of inputs, each {valid}; not {type(items).__name__}")
    found = list(items)
    for index, item in enumerate(found):
        if not isinstance(item, str | Image | Mapping):
            raise TypeError(f"{name}[{index}]: {valid}; not {type(item).__name__}")
    if not found:
        raise ValueError(f"{name} is empty")
    return found


def _pieces(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Lists of at most `MAX_ITEMS` and `MAX_BYTES`. A larger item gets a list of its own."""
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
    """Estimated bytes of `value` in a body. Files are not read."""
    match value:
        case Image():
            return value.wire_length()
        case Mapping():
            return sum(map(_length, value.values()))
        case _:
            return len(_dumps(value))


def embed_call(items: Sequence[Item], multivector: bool = False, **options: Unpack[EmbedOptions]) -> Call:
    """`POST /v1/embeddings`. Vectors come as base64, which keeps every bit."""
    if unknown := options.keys() - EmbedOptions.__optional_keys__:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {
        "input": [_wire(item) for item in items],
        "embedding_type": "base64",
        **options,
        "return_multivector": multivector or None,
    }
    headers = {
        "x-priority": fields.pop("priority", None),
        "x-require-vector-space": fields.pop("vector_space", None),
    }
    sent = {name: value for name, value in headers.items() if value is not None}
    return Call("POST", "/v1/embeddings", _json(fields), sent)


def rerank_call(query: Item, documents: Sequence[Item], top_n: int | None, model: str | None) -> Call:
    """`POST /v1/rerank`. The reply leaves out the documents, since the caller has them."""
    [query] = checked([query], "query")
    fields = {
        "model": model,
        "query": _wire(query),
        "documents": [_wire(document) for document in documents],
        "top_n": top_n,
        "return_documents": False,
    }
    return Call("POST", "/v1/rerank", _json(fields))


def _wire(item: Item) -> str | dict[str, Any]:
    match item:
        case str(text):
            # The server reads a bare string that is a data URI as an image.
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
        # orjson refuses lone surrogates.
        return orjson.dumps(without_lone_surrogates(value))


def without_lone_surrogates(value: Any) -> Any:
    """`value` with U+FFFD for each lone surrogate in its strings. A pair becomes its character."""
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {without_lone_surrogates(key): without_lone_surrogates(v) for key, v in value.items()}
        case list() | tuple():
            return [without_lone_surrogates(part) for part in value]
        case _:
            return value
