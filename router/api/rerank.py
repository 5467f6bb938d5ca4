"""`POST /v1/rerank`: documents ordered by how well they answer a query.

The model chooses: a cross-encoder, or late interaction over the multi-vectors of the retrieval pool. Either
way each document is an item, scored against the query inside the worker.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from triptych.router.api.body import parse_body
from triptych.router.api.bounds import MaxItems, not_too_many
from triptych.router.api.catalog import Catalog, Choice
from triptych.router.api.model_fields import whole_number
from triptych.router.api.plan import plan_content
from triptych.router.api.reply_bodies import PIECE_BYTES, in_pieces
from triptych.router.api.schema import RANKED_FORMS, RankedImage, RankedText, form_of
from triptych.router.api.work import Work, tokens_of, whole
from triptych.router.http import Reply, Request
from triptych.router.items import Item, Priority, Query
from triptych.router.media.loader import MediaLoader
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.served import Served
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract

# Some cross-encoders read a long document in windows of their context. All windows together have at most
# WORKER_MAX_TOKENS tokens, by default as many as here.
WINDOWS_TOKENS = 32_768
# Longest name of a model. The reply may repeat it, so it is kept while the request waits, and is not counted.
MAX_NAME = 256

Ranked = Annotated[
    Annotated[str, Tag("|string")]
    | Annotated[RankedText, Tag("|text")]
    | Annotated[RankedImage, Tag("|image")],
    Discriminator(
        form_of(RANKED_FORMS),
        custom_error_type="item_form",
        custom_error_message='write a string, {"text": "..."} or {"image": "..."}',
    ),
]


class RerankRequest(BaseModel):
    """What to rank, and against what. Fields not listed here are ignored; null means the default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = Field(
        None,
        max_length=MAX_NAME,
        description="The model that ranks: a reranker, or jina-embeddings-v4 by late interaction. By default "
        "a reranker, if one is deployed. The pool `rerank` may serve any cross-encoder and takes any name.",
    )
    query: Ranked = Field(description="A string, or a text or image item.")
    documents: Annotated[list[Ranked], BeforeValidator(not_too_many)] = Field(
        min_length=1,
        description="Strings, or text or image items; a model that reads no images takes texts only.",
    )
    top_n: Annotated[int | None, Field(ge=1), BeforeValidator(whole_number)] = Field(
        None, description="Give the best so many only; all when left out."
    )
    return_documents: bool | None = Field(
        None, description="Give each document with its score (true, the default), or not (false)."
    )


async def rerank(request: Request, fleet: Fleet, media: MediaLoader, settings: RouterSettings) -> Reply:
    """Rank what the request asks for. Raises a `RouterError`, or `ClientGone`."""
    work = Work(request, fleet, media, settings)

    def parse(body: bytes, catalog: Catalog) -> tuple[RerankRequest, Choice, list[Item]]:
        wanted = parse_rerank(body, settings.max_items)
        choice = catalog.ranking(wanted.model)
        return wanted, choice, plan_rerank(wanted, settings, choice.served, work.priority)

    async with work:
        wanted, choice, items = await work.read(parse)
        asked, *documents = await work.load(items)
        assert not isinstance(asked.wire.content, contract.Document)
        cost = 0 if choice.family.cross_encoder else asked.cost
        query = Query(asked.wire.content, cost, asked.field)
        for index, item in enumerate(documents):
            item.index = index
            item.query = query
        vectors = await work.vectors(documents)
    with fleet.metrics.encoded("rerank").time():
        body = await whole(rerank_body(wanted, choice.model, vectors))
    return Reply(200, body)


def parse_rerank(body: bytes, max_items: int) -> RerankRequest:
    """The request in `body`; raises `Invalid`, which names every field that is wrong."""
    return parse_body(RerankRequest, body, MaxItems(max_items, "documents"))


def plan_rerank(
    wanted: RerankRequest, settings: RouterSettings, served: Served, priority: Priority | None
) -> list[Item]:
    """The query and then each document as items whose media may still have to be loaded.

    Raises `Invalid`, `TooLarge` or `MediaInvalid`.
    """
    sources: list[tuple[str, Ranked, contract.Role]] = [("body -> query", wanted.query, "query")]
    for index, document in enumerate(wanted.documents):
        sources.append((f"body -> documents -> {index}", document, "passage"))
    family = served.family
    assert family.rerank is not None
    pool = family.pool(family.rerank)
    longest = WINDOWS_TOKENS if family.windows else served.max_tokens
    items = []
    for index, (field, source, role) in enumerate(sources):
        content, cost, wanted_media, field = plan_content(source, role, field, settings, family)
        # Long documents are cut: ranking 99 whole documents and a cut one is better than refusing all.
        wire = contract.Item(content, truncate=True)
        item = Item(pool, wire, min(cost, longest), index, field, media=wanted_media)
        item.priority = priority or Priority.INTERACTIVE
        items.append(item)
    if family.cross_encoder:
        # It reads the query with every document.
        for item in items[1:]:
            item.cost = min(item.cost + items[0].cost, longest)
    return items


def rerank_body(wanted: RerankRequest, model: str, scores: list[contract.Vector]) -> Iterator[bytes]:
    """The JSON of a reply, in pieces: the best first, of equals the one that came first."""
    values = [float(np.frombuffer(score.data, np.float32)[0]) for score in scores]
    order = sorted(range(len(values)), key=lambda index: -values[index])[: wanted.top_n]
    tokens = tokens_of(scores)
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    head = orjson.dumps({"model": model, "usage": usage})
    return in_pieces(b'%b,"results":[' % head[:-1], _results(wanted, values, order), b"]}")


def _results(wanted: RerankRequest, values: list[float], order: list[int]) -> Iterator[bytes]:
    comma = b""
    for index in order:
        yield comma + orjson.dumps({"index": index, "relevance_score": values[index]})[:-1]
        if wanted.return_documents is not False:
            yield b',"document":'
            yield from _echo(wanted.documents[index])
        yield b"}"
        comma = b","


def _echo(document: str | RankedText | RankedImage) -> Iterator[bytes]:
    """The JSON of a document; a large one in steps."""
    name, value = (
        ("text", document) if isinstance(document, str) else next(iter(document.model_dump().items()))
    )
    yield f'{{"{name}":"'.encode()
    for at in range(0, len(value), PIECE_BYTES):
        yield orjson.dumps(value[at : at + PIECE_BYTES])[1:-1]
    yield b'"}'
