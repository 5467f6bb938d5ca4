"""Planning: the items of a request, each with pool, role, priority and cost (pure)."""

from collections.abc import Iterable, Sequence
from typing import Any

from triptych.router.api.catalog import Catalog
from triptych.router.api.schema import (
    BytesItem,
    EmbeddingRequest,
    ImageItem,
    PdfItem,
    RankedImage,
    RankedText,
    TextItem,
    UrlItem,
)
from triptych.router.errors import Invalid
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
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract
from triptych.workers.shared.families import Family

# Larger requests are indexing: bulk, except for their queries.
SMALL_ITEMS = 32
SMALL_TOKENS = 4096

# Estimates without a tokenizer: four bytes of UTF-8 a token, and the tokens of the prefix.
BYTES_PER_TOKEN = 4
PREFIX_TOKENS = 3

# The number of pages is not known yet. Documents are bulk.
PDF_TOKENS = SMALL_TOKENS + 1

_NOT_LOADED = contract.Image(b"")

Source = str | TextItem | ImageItem | UrlItem | BytesItem | PdfItem


def plan(
    request: EmbeddingRequest, catalog: Catalog, settings: RouterSettings, priority: Priority | None = None
) -> list[Item]:
    """One item for each input, in order, for pools of one family. A given `priority` holds for all.

    `triptych.router.media.loader` completes items with `media` set; a PDF becomes an item for each page.

    Raises `ModelNotFound`, `Invalid`, `TooLarge` or `MediaInvalid`.
    """
    choice = catalog.embedding(request.model)
    family, max_tokens = choice.family, choice.served.max_tokens
    _check_options(request, family)
    task = request.task or choice.task or family.default_task
    dimensions = request.dimensions
    if dimensions is None and not request.return_multivector:
        dimensions = choice.dimensions
    options: dict[str, Any] = {
        "dimensions": dimensions,
        "multivector": bool(request.return_multivector),
        "normalized": request.normalized is not False,
        "truncate": bool(request.truncate),
        "tokenized": bool(request.return_tokenized_input),
    }
    inputs = request.input if isinstance(request.input, list) else [request.input]
    listed = isinstance(request.input, list)
    paths = [f"body -> input -> {index}" if listed else "body -> input" for index in range(len(inputs))]
    if request.late_chunking:
        document = _document(inputs, paths, task, options, family, max_tokens)
        _set_priorities([document], [_is_query(task)], priority)
        return [document]
    routes = family.routes
    items: list[Item] = []
    queries: list[bool] = []
    for index, (source, path) in enumerate(zip(inputs, paths, strict=True)):
        if isinstance(source, PdfItem) and len(inputs) > 1:
            raise Invalid.field(
                f"{path} -> pdf", "a PDF must be the only input of its request", "pdf_alone", source.pdf
            )
        own_task = task if isinstance(source, str) else source.task or task
        pool, role = routes[own_task]
        content, cost, media, field = plan_content(source, role, path, settings, family)
        wire = contract.Item(content, **options)
        items.append(Item(pool, wire, min(cost, max_tokens), index, field, media=media))
        queries.append(_is_query(own_task))
    _set_priorities(items, queries, priority)
    return items


def _check_options(request: EmbeddingRequest, family: Family) -> None:
    """Raise `Invalid` for what the model cannot do."""
    if request.late_chunking and not family.late_chunking:
        raise Invalid.field(
            "body -> late_chunking", f"{family.name} has no late chunking", "unsupported", True
        )
    if request.return_multivector and family.multivector is None:
        raise Invalid.field(
            "body -> return_multivector", f"{family.name} has no multi-vectors", "unsupported", True
        )
    if request.prompt_name is not None and request.task is None:
        raise Invalid.field(
            "body -> prompt_name", "is used together with a task", "conflict", request.prompt_name
        )


def _is_query(task: str | None) -> bool:
    return task is not None and task.endswith(".query")


def _document(
    inputs: Sequence[Source],
    paths: Sequence[str],
    task: str | None,
    options: dict[str, Any],
    family: Family,
    max_tokens: int,
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
                f"with late_chunking all inputs have the request's task ({task or 'no task'})",
                "conflict",
                own_task,
            )
        if not text.strip():
            message = "with late_chunking an input must not be empty or white space"
            raise Invalid.field(text_path, message, "too_short", text)
        chunks.append(text)
    pool, role = family.routes[task]
    wire = contract.Item(contract.Document(tuple(chunks), role), **options)
    cost = sum(_text_tokens(chunk) for chunk in chunks)
    return Item(pool, wire, min(cost, max_tokens), 0, "body -> input")


def plan_content(
    source: Source | RankedText | RankedImage,
    role: contract.Role,
    field: str,
    settings: RouterSettings,
    family: Family,
) -> tuple[contract.Text | contract.Image, int, Media | None, str]:
    """Content for the worker, estimated cost in tokens, media to load, and field of one input."""
    match source:
        case str() if is_image_uri(source):
            image, field = source, _image_field(family, field)
        case str():
            return contract.Text(source, role), _text_tokens(source), None, field
        case RankedText():
            return contract.Text(source.text, role), _text_tokens(source.text), None, field
        case RankedImage():
            image, field = source.image, _image_field(family, field, "image")
        case UrlItem():
            image, field = source.url, _image_field(family, field, "url")
        case BytesItem():
            image, field = source.bytes, _image_field(family, field, "bytes")
        case PdfItem():
            field = _image_field(family, field, "pdf")
            pdf = source.pdf.strip()
            file = pdf if is_remote(pdf) else read_pdf(pdf, settings.max_pdf_bytes, field)
            return _NOT_LOADED, PDF_TOKENS, Media("pdf", file), field
    image = image.strip()
    if is_remote(image) and not isinstance(source, BytesItem):
        return _NOT_LOADED, MAX_IMAGE_TOKENS + PROMPT_TOKENS, Media("image", image), field
    data, tokens = read_image(image, settings.max_image_bytes, field)
    return contract.Image(data), tokens, None, field


def _image_field(family: Family, *path: str) -> str:
    """The field of an image or a PDF. Raises `Invalid` if the model takes texts only."""
    field = " -> ".join(path)
    if not family.images:
        raise Invalid.field(field, f"{family.name} takes texts only", "unsupported")
    return field


def _text_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return size // BYTES_PER_TOKEN + PREFIX_TOKENS


def _set_priorities(items: list[Item], queries: Iterable[bool], priority: Priority | None) -> None:
    """Set each item's priority: unless given, passages of a large request are bulk."""
    large = len(items) > SMALL_ITEMS or sum(item.cost for item in items) > SMALL_TOKENS
    for item, query in zip(items, queries, strict=True):
        by_size = Priority.BULK if large and not query else Priority.INTERACTIVE
        item.priority = by_size if priority is None else priority
