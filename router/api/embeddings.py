"""`POST /v1/embeddings`."""

import time
from collections.abc import Callable, Iterator

from triptych.router.api.accept import prefers
from triptych.router.api.catalog import Catalog
from triptych.router.api.plan import plan
from triptych.router.api.reply_bodies import embeddings_body, npy_body
from triptych.router.api.schema import EmbeddingRequest, parse_request
from triptych.router.api.work import Work, tokens_of, whole
from triptych.router.errors import Invalid
from triptych.router.http import Header, Reply, Request
from triptych.router.items import Item
from triptych.router.media.loader import MediaLoader
from triptych.router.pool.fleet import Fleet
from triptych.router.settings import RouterSettings
from triptych.workers.shared.families import BY_POOL

NPY = "application/x-npy"
JSON = "application/json"


async def embeddings(request: Request, fleet: Fleet, media: MediaLoader, settings: RouterSettings) -> Reply:
    """Embed what the request asks for. Raises a `RouterError`, or `ClientGone`."""
    work = Work(request, fleet, media, settings)
    npy = prefers(request.header("accept"), NPY, JSON)

    def parse(body: bytes, catalog: Catalog) -> tuple[EmbeddingRequest, list[Item]]:
        wanted = parse_request(body, catalog, settings.max_items)
        _check_form(wanted, npy)
        return wanted, plan(wanted, catalog, settings, work.priority)

    async with work:
        wanted, items = await work.read(parse)
        model = BY_POOL[items[0].pool].name
        form, multivector = wanted.embedding_type or "float", bool(wanted.return_multivector)
        dtype = wanted.embed_dtype or "float32"
        # It holds the inputs, which need not stay in memory.
        del wanted
        vectors = await work.vectors(await work.load(items))
        del items
    # The inputs that lost tokens to `truncate`; of a document, which is alone, its parts.
    cut = [str(index + vector.cut) for index, vector in enumerate(vectors) if vector.cut is not None]
    headers: list[Header] = [(b"x-truncated-inputs", ",".join(cut).encode())] if cut else []
    if npy:
        tokens = str(tokens_of(vectors)).encode()
        headers += [(b"x-usage-total-tokens", tokens), (b"x-usage-prompt-tokens", tokens)]
        with fleet.metrics.encoded("npy").time():
            reply = npy_body(vectors, dtype)
        return Reply(200, reply, NPY.encode(), tuple(headers))
    pieces = embeddings_body(vectors, form, multivector, model)
    pieces = _timed(pieces, fleet.metrics.encoded(form).observe)
    body = await whole(pieces, stream=multivector and request.takes_stream)
    return Reply(200, body, headers=tuple(headers))


def _timed(pieces: Iterator[bytes], done: Callable[[float], None]) -> Iterator[bytes]:
    """The same pieces; `done` gets the seconds that it took to make them all."""
    seconds = 0.0
    while True:
        started = time.perf_counter()
        piece = next(pieces, None)
        seconds += time.perf_counter() - started
        if piece is None:
            break
        yield piece
    done(seconds)


def _check_form(wanted: EmbeddingRequest, npy: bool) -> None:
    """Raise `Invalid` if the reply should be a matrix and cannot, or the other way round."""
    if npy and wanted.return_multivector:
        raise Invalid.field(
            "header -> accept", f"multi-vectors make no matrix; take {NPY} out", "conflict", NPY
        )
    if wanted.embed_dtype is not None and not npy:
        raise Invalid.field(
            "body -> embed_dtype",
            f"is for replies as .npy: send `Accept: {NPY}`",
            "conflict",
            wanted.embed_dtype,
        )
