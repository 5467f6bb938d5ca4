"""`POST /v1/embeddings`."""

import time
from collections.abc import Callable, Iterator
from functools import partial

from router.api.accept import prefers
from router.api.plan import plan
from router.api.reply_bodies import embeddings_body, npy_body
from router.api.schema import EmbeddingRequest, parse_request
from router.api.work import Work, tokens_of, whole
from router.errors import Invalid
from router.http import Header, Reply, Request
from router.media.loader import MediaLoader
from router.pool.fleet import Fleet
from router.settings import RouterSettings
from workers.shared.contract import Vector

NPY = "application/x-npy"
JSON = "application/json"


async def embeddings(request: Request, fleet: Fleet, media: MediaLoader, settings: RouterSettings) -> Reply:
    """Embed what the request asks for. Raises a `RouterError`, or `ClientGone`."""
    work = Work(request, fleet, media, settings)
    wanted = parse_request(await work.body(), settings.model_aliases, settings.max_items)
    npy = _wants_npy(request, wanted)
    form, multivector = wanted.embedding_type or "float", bool(wanted.return_multivector)
    dtype = wanted.embed_dtype or "float32"
    planned = plan(wanted, work.limits, work.priority)
    # The items have its texts; images in base64 need not stay.
    del wanted
    vectors = await work.vectors(await work.load(planned))
    headers = _cut_header(vectors)
    if npy:
        tokens = str(tokens_of(vectors)).encode()
        headers += [(b"x-usage-total-tokens", tokens), (b"x-usage-prompt-tokens", tokens)]
        started = time.perf_counter()
        reply = npy_body(vectors, dtype)
        fleet.metrics.encoded("npy", time.perf_counter() - started)
        return Reply(200, reply, NPY.encode(), tuple(headers))
    pieces = _timed(embeddings_body(vectors, form, multivector), partial(fleet.metrics.encoded, form))
    body = await whole(pieces, stream=multivector and request.http_version != "1.0")
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


def _wants_npy(request: Request, wanted: EmbeddingRequest) -> bool:
    """Whether the reply is to be a matrix; raises `Invalid` where it cannot be one."""
    npy = prefers(request.header("accept"), NPY, JSON)
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
    return npy


def _cut_header(vectors: list[Vector]) -> list[Header]:
    """Which inputs lost tokens to `truncate`; for a document, which is alone, which of its parts."""
    cut = [str(index + vector.cut) for index, vector in enumerate(vectors) if vector.cut is not None]
    return [(b"x-truncated-inputs", ",".join(cut).encode())] if cut else []
