"""Planning: the items of a request, each with pool, role, priority and cost (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from triptych.router.api.schema import (
    NO_ALIASES,
    TASKS,
    Aliases,
    BytesItem,
    EmbeddingRequest,
    ImageItem,
    PdfAmongOthers,
    PdfItem,
    Task,
    TextItem,
    UrlItem,
)
from triptych.router.errors import Invalid, ModelNotFound
from triptych.router.items import Item, Priority
from triptych.router.media.formats import (
    MAX_IMAGE_TOKENS,
    PROMPT_TOKENS,
    Media,
    is_image_uri,
    is_remote,
    read_image,
    read_pdf,
)
from triptych.workers.shared import contract

MODEL = "jina-embeddings-v4"
MODELS = (MODEL, f"jinaai/{MODEL}")
DEFAULT_TASK: Task = "text-matching"

# Pool and role of each task; the model's own code encodes text-matching as queries [M1].
ROUTES: dict[Task, tuple[contract.PoolName, contract.Role]] = {
    "text-matching": ("text-matching", "query"),
    "retrieval.query": ("retrieval", "query"),
    "retrieval.passage": ("retrieval", "passage"),
    "code.query": ("code", "query"),
    "code.passage": ("code", "passage"),
}
QUERIES: frozenset[Task] = frozenset({"retrieval.query", "code.query"})

# Larger requests are indexing: bulk, except for their queries.
SMALL_ITEMS = 32
SMALL_TOKENS = 4096

# Estimates without a tokenizer: four bytes of UTF-8 a token, and the tokens of the prefix.
BYTES_PER_TOKEN = 4
PREFIX_TOKENS = 3

# The number of pages is not known yet. Documents are bulk.
PDF_TOKENS = SMALL_TOKENS + 1

_NOT_LOADED = contract.Image(b"")

Source = str | TextItem | ImageItem | UrlItem | BytesItem | PdfItem | PdfAmongOthers


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request. `dimensions` and `max_tokens` are those of the served model."""

    max_items: int
    max_image_bytes: int
    max_pdf_bytes: int
    dimensions: int
    max_tokens: int
    aliases: Aliases = field(default_factory=lambda: NO_ALIASES)


def plan(request: EmbeddingRequest, limits: Limits, priority: Priority | None = None) -> list[Item]:
    """One item for each input, in order; `priority` replaces the priority of each.

    `triptych.router.media.loader` completes items with `media` set; a PDF becomes an item for each page.

    Raises `ModelNotFound`, `Invalid`, `TooLarge` or `MediaInvalid`.
    """
    model_task = task_of_model(request.model, limits.aliases)
    task = request.task or model_task or DEFAULT_TASK
    if request.dimensions is not None and request.dimensions > limits.dimensions:
        raise Invalid.field(
            "body -> dimensions",
            f"the served model has {limits.dimensions} dimensions",
            "less_than_equal",
            request.dimensions,
        )
    options: dict[str, Any] = {
        "dimensions": request.dimensions,
        "multivector": bool(request.return_multivector),
        "normalized": request.normalized is not False,
        "truncate": bool(request.truncate),
        "tokenized": bool(request.return_tokenized_input),
    }
    inputs = request.input if isinstance(request.input, list) else [request.input]
    if len(inputs) > limits.max_items:
        raise Invalid.field(
            "body -> input", f"at most {limits.max_items} inputs a request", "too_long", inputs
        )
    listed = isinstance(request.input, list)
    paths = [f"body -> input -> {index}" if listed else "body -> input" for index in range(len(inputs))]
    if request.late_chunking:
        document = _document(inputs, paths, task, options, limits)
        _set_priorities([document], [task in QUERIES], priority)
        return [document]
    items: list[Item] = []
    queries: list[bool] = []
    for index, (source, path) in enumerate(zip(inputs, paths, strict=True)):
        own_task = task if isinstance(source, str) else source.task or task
        pool, role = ROUTES[own_task]
        content, cost, media, field = plan_content(source, role, path, limits)
        wire = contract.Item(content, **options)
        items.append(Item(pool, wire, min(cost, limits.max_tokens), index, field, media=media))
        queries.append(own_task in QUERIES)
    _set_priorities(items, queries, priority)
    return items


def models() -> list[str]:
    """Every model name that a request may send, aliases excepted."""
    return [*MODELS, *(f"{name}:{task}" for name in MODELS for task in TASKS)]


def _document(
    inputs: Sequence[Source], paths: Sequence[str], task: Task, options: dict[str, Any], limits: Limits
) -> Item:
    """All inputs as the chunks of one document, a single item; `paths` name them in errors."""
    chunks = []
    for source, path in zip(inputs, paths, strict=True):
        match source:
            case str() if not is_image_uri(source):
                text, text_path = source, path
            case TextItem():
                text, text_path = source.text, f"{path} -> text"
            case _:
                raise Invalid.field(path, "late_chunking takes texts only", "conflict")
        own_task = None if isinstance(source, str) else source.task
        if own_task not in (None, task):
            raise Invalid.field(
                f"{path} -> task",
                f"with late_chunking all inputs have the same task ({task})",
                "conflict",
                own_task,
            )
        if not text.strip():
            message = "with late_chunking an input must not be empty or white space"
            raise Invalid.field(text_path, message, "too_short", text)
        chunks.append(text)
    pool, role = ROUTES[task]
    wire = contract.Item(contract.Document(tuple(chunks), role), **options)
    cost = sum(_text_tokens(chunk) for chunk in chunks)
    return Item(pool, wire, min(cost, limits.max_tokens), 0, "body -> input")


def task_of_model(model: str | None, aliases: Aliases) -> Task | None:
    """The task in the name of the model, if there is one. Raises `ModelNotFound`."""
    if model is None or model in aliases:
        return None
    name, _, suffix = model.partition(":")
    if name in MODELS and (model == name or suffix in TASKS):
        return next((task for task in TASKS if task == suffix), None)
    raise ModelNotFound(
        f"no model {model[:100]!r}; the models are {', '.join([*MODELS, *aliases])}; the first two also take "
        f"a suffix :<task> ({', '.join(TASKS)})"
    )


def plan_content(
    source: Source,
    role: contract.Role,
    field: str,
    limits: Limits,
) -> tuple[contract.Text | contract.Image, int, Media | None, str]:
    """Content for the worker, estimated cost in tokens, media to load, and field of one input."""
    match source:
        case str() if is_image_uri(source):
            image = source
        case str():
            return contract.Text(source, role), _text_tokens(source), None, field
        case TextItem():
            return contract.Text(source.text, role), _text_tokens(source.text), None, field
        case ImageItem():
            image, field = source.image, f"{field} -> image"
        case UrlItem():
            image, field = source.url, f"{field} -> url"
        case BytesItem():
            image, field = source.bytes, f"{field} -> bytes"
        case PdfItem():
            field = f"{field} -> pdf"
            pdf = source.pdf.strip()
            file = pdf if is_remote(pdf) else read_pdf(pdf, limits.max_pdf_bytes, field)
            return _NOT_LOADED, PDF_TOKENS, Media("pdf", file), field
        case PdfAmongOthers():
            raise AssertionError("the schema lets no such PDF through. This is a bug.")
    image = image.strip()
    if is_remote(image) and not isinstance(source, BytesItem):
        return _NOT_LOADED, MAX_IMAGE_TOKENS + PROMPT_TOKENS, Media("image", image), field
    data, tokens = read_image(image, limits.max_image_bytes, field)
    return contract.Image(data), tokens, None, field


def _text_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return size // BYTES_PER_TOKEN + PREFIX_TOKENS


def _set_priorities(items: list[Item], queries: Iterable[bool], priority: Priority | None) -> None:
    """Set each item's priority: unless given, passages of a large request are bulk."""
    large = len(items) > SMALL_ITEMS or sum(item.cost for item in items) > SMALL_TOKENS
    for item, query in zip(items, queries, strict=True):
        item.priority = priority if priority is not None else Priority(large and not query)
