"""From a request to its items: which pool, which role, how urgent, at what cost (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from router.errors import Invalid, ModelNotFound
from router.item import Item
from router.media import image_tokens, is_image_uri, read_image
from router.schema import (
    TASKS,
    BytesItem,
    EmbeddingRequest,
    ImageItem,
    PdfItem,
    Task,
    TextItem,
    UrlItem,
)
from workers import contract

MODEL = "jina-embeddings-v4"
MODELS = (MODEL, f"jinaai/{MODEL}")
DEFAULT_TASK: Task = "text-matching"

# The pool that serves a task and the prompt's role in it; text-matching is asked as a query [M1].
ROUTES: dict[Task, tuple[contract.PoolName, contract.Role]] = {
    "text-matching": ("text-matching", "query"),
    "retrieval.query": ("retrieval", "query"),
    "retrieval.passage": ("retrieval", "passage"),
    "code.query": ("code", "query"),
    "code.passage": ("code", "passage"),
}
QUERIES: frozenset[Task] = frozenset({"retrieval.query", "code.query"})

# A request with more than this is somebody indexing, not somebody waiting, unless it holds queries.
SMALL_ITEMS = 32
SMALL_TOKENS = 4096

# Without a tokenizer: about four bytes of UTF-8 make a token, and the prefix makes two or three.
BYTES_PER_TOKEN = 4
PREFIX_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request must stay within. `dimensions` and `max_tokens` are those of the served model."""

    max_items: int
    max_image_bytes: int
    dimensions: int
    max_tokens: int


def plan(request: EmbeddingRequest, limits: Limits, bulk: bool | None = None) -> list[Item]:
    """One item for each input, in order; `bulk` overrides the class that each would be given.

    Raises `ModelNotFound`, `Invalid`, `TooLarge` or `MediaInvalid`.
    """
    model_task = _task_of_model(request.model)
    task = request.task or model_task or DEFAULT_TASK
    if request.dimensions is not None and request.dimensions > limits.dimensions:
        raise Invalid.field(
            "body -> dimensions",
            f"the served model has {limits.dimensions} dimensions",
            "less_than_equal",
            request.dimensions,
        )
    options = {
        "dimensions": request.dimensions,
        "multivector": bool(request.return_multivector),
        "normalized": request.normalized is not False,
        "truncate": bool(request.truncate),
    }
    inputs = request.input if isinstance(request.input, list) else [request.input]
    if len(inputs) > limits.max_items:
        raise Invalid.field(
            "body -> input", f"at most {limits.max_items} inputs a request", "too_long", inputs
        )
    listed = isinstance(request.input, list)
    items: list[Item] = []
    queries: list[bool] = []
    for index, source in enumerate(inputs):
        field = f"body -> input -> {index}" if listed else "body -> input"
        own_task = task if isinstance(source, str) else source.task or task
        pool, role = ROUTES[own_task]
        content, cost = _content(source, role, field, limits)
        wire = contract.Item(content, **options)  # type: ignore[arg-type]
        items.append(Item(pool, wire, min(cost, limits.max_tokens), index, field))
        queries.append(own_task in QUERIES)
    _classify(items, queries, bulk)
    return items


def models() -> list[str]:
    """Every name that a request may give as its model."""
    return [*MODELS, *(f"{name}:{task}" for name in MODELS for task in TASKS)]


def _task_of_model(model: str | None) -> Task | None:
    """The task that the model's name carries, if any."""
    if model is None:
        return None
    name, _, suffix = model.partition(":")
    if name in MODELS and (model == name or suffix in TASKS):
        return next((task for task in TASKS if task == suffix), None)
    raise ModelNotFound(
        f"no model {model[:100]!r}; there are {' and '.join(MODELS)}, each also with :<task> behind it "
        f"({', '.join(TASKS)})"
    )


def _content(
    source: str | TextItem | ImageItem | UrlItem | BytesItem | PdfItem,
    role: contract.Role,
    field: str,
    limits: Limits,
) -> tuple[contract.Text | contract.Image, int]:
    """What goes to the worker for one input, and about what it costs."""
    match source:
        case str() if is_image_uri(source):
            image = source
        case str():
            return contract.Text(source, role), _text_tokens(source)
        case TextItem():
            return contract.Text(source.text, role), _text_tokens(source.text)
        case ImageItem():
            image, field = source.image, f"{field} -> image"
        case UrlItem():
            image, field = source.url, f"{field} -> url"
        case BytesItem():
            image, field = source.bytes, f"{field} -> bytes"
        case PdfItem():
            raise AssertionError("the schema lets no PDF through. This is a bug.")
    data = read_image(image, limits.max_image_bytes, field)
    return contract.Image(data), image_tokens(data)


def _text_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return size // BYTES_PER_TOKEN + PREFIX_TOKENS


def _classify(items: list[Item], queries: Iterable[bool], bulk: bool | None) -> None:
    """Set each item's class: bulk for what is not a query in a large request."""
    large = len(items) > SMALL_ITEMS or sum(item.cost for item in items) > SMALL_TOKENS
    for item, query in zip(items, queries, strict=True):
        item.bulk = bulk if bulk is not None else large and not query
