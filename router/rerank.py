"""`POST /v1/rerank`: documents in the order in which they answer a query.

Late interaction over the retrieval pool, or the cross-encoders of the `rerank` pool where there is one.
Either way every document is an item of its own, held against the query where its vectors are.
"""

from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from router.errors import Invalid
from router.fleet import RERANK_POOL, Fleet
from router.http import Reply, Request
from router.item import Item
from router.loader import MediaLoader
from router.plan import MODEL, Limits, Source, plan_content, task_of_model
from router.schema import ImageItem, TextItem, field_errors
from router.settings import RouterSettings
from router.work import bulk_of, gather, limits_of, seconds_of
from workers import contract

LATE_INTERACTION_POOL: contract.PoolName = "retrieval"


class RankedText(BaseModel):
    """A text."""

    text: str


class RankedImage(BaseModel):
    """An image."""

    image: str = Field(
        description="A PNG, JPEG, WebP or GIF image: its http(s) address, base64, or a "
        "`data:image/...;base64,` URI."
    )


def _form(value: Any) -> str | None:
    if isinstance(value, str):
        return "|string"
    given = [form for form in ("text", "image") if isinstance(value, dict) and form in value]
    return f"|{given[0]}" if len(given) == 1 else None


Ranked = Annotated[
    Annotated[str, Tag("|string")]
    | Annotated[RankedText, Tag("|text")]
    | Annotated[RankedImage, Tag("|image")],
    Discriminator(
        _form,
        custom_error_type="item_form",
        custom_error_message='write a string, {"text": "..."} or {"image": "..."}',
    ),
]


class RerankRequest(BaseModel):
    """What to rank, and against what. Fields not listed here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = Field(
        None,
        description="The served model when left out. Where a cross-encoder is configured, any name is taken.",
    )
    query: Ranked = Field(description="A string, or a text or image item.")
    documents: list[Ranked] = Field(
        min_length=1, description="Strings, or text or image items; a cross-encoder takes texts only."
    )
    top_n: int | None = Field(None, ge=1, description="Give the best so many only; all when left out.")
    return_documents: bool = Field(True, description="Give each document with its score.")


async def rerank(request: Request, fleet: Fleet, media: MediaLoader, settings: RouterSettings) -> Reply:
    """Rank what the request asks for. Raises a `RouterError`, or `ClientGone`."""
    bulk = bulk_of(request)
    seconds = seconds_of(request, settings)
    wanted = parse_rerank(await request.body(settings.max_body_bytes))
    pool = RERANK_POOL if RERANK_POOL in fleet.pools else LATE_INTERACTION_POOL
    limits = limits_of(fleet, settings)
    if pool == LATE_INTERACTION_POOL:
        task_of_model(wanted.model, limits.aliases)
    started = fleet.clock()
    query, *documents = await media.load(request, plan_rerank(wanted, limits, pool, bulk), seconds)
    for item in documents:
        item.wire = msgspec.structs.replace(item.wire, against=query.wire.content)
        item.cost += query.cost
    seconds -= fleet.clock() - started
    for index, item in enumerate(documents):
        item.index = index
    vectors = await gather(request, fleet, documents, seconds)
    return Reply(200, rerank_body(wanted, vectors))


def parse_rerank(body: bytes) -> RerankRequest:
    """The request in `body`; raises `Invalid`, which names every field that is wrong."""
    try:
        return RerankRequest.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(field_errors(error)) from None


def plan_rerank(
    wanted: RerankRequest, limits: Limits, pool: contract.PoolName, bulk: bool | None
) -> list[Item]:
    """The query and then each document as items whose media may still have to be loaded.

    Raises `Invalid`, `TooLarge` or `MediaInvalid`.
    """
    if len(wanted.documents) > limits.max_items:
        raise Invalid.field(
            "body -> documents",
            f"at most {limits.max_items} documents a request",
            "too_long",
            wanted.documents,
        )
    sources: list[tuple[str, Ranked, contract.Role]] = [("body -> query", wanted.query, "query")]
    for index, document in enumerate(wanted.documents):
        sources.append((f"body -> documents -> {index}", document, "passage"))
    items = []
    for index, (field, source, role) in enumerate(sources):
        content, cost, wanted_media, field = plan_content(_source(source), role, field, limits)
        # What is too long is cut: a ranking of 99 documents is better than none of 100.
        wire = contract.Item(content, truncate=True)
        item = Item(pool, wire, min(cost, limits.max_tokens), index, field, media=wanted_media)
        item.bulk = bool(bulk)
        items.append(item)
    return items


def _source(ranked: str | RankedText | RankedImage) -> Source:
    match ranked:
        case str():
            return ranked
        case RankedText():
            return TextItem(text=ranked.text)
        case RankedImage():
            return ImageItem(image=ranked.image)


def rerank_body(wanted: RerankRequest, scores: list[contract.Vector]) -> bytes:
    """The JSON of a reply: the best first, of equals the one that came first."""
    values = [float(np.frombuffer(score.data, np.float32)[0]) for score in scores]
    order = sorted(range(len(values)), key=lambda index: -values[index])[: wanted.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        result: dict[str, Any] = {"index": index, "relevance_score": values[index]}
        if wanted.return_documents:
            result["document"] = _echo(wanted.documents[index])
        results.append(result)
    # The query is read once a batch; it is counted once.
    tokens = sum(score.tokens for score in scores) + max(score.query_tokens for score in scores)
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return orjson.dumps({"model": wanted.model or MODEL, "usage": usage, "results": results})


def _echo(document: str | RankedText | RankedImage) -> dict[str, str]:
    return {"text": document} if isinstance(document, str) else document.model_dump()
