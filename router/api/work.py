"""What every request for work has in common: its class, its time, its limits, and waiting for it."""

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from typing import TypeVar, get_args

from router.api.plan import Limits
from router.errors import ClientGone, Invalid, TimedOut, Unavailable
from router.http import Header, Request
from router.items import Item, Required, cost_of
from router.pool.fleet import Fleet
from router.settings import RouterSettings
from workers.shared import contract
from workers.shared.contract import SPACE_HEADER, PoolName, Vector

LONGEST_TIMEOUT_SECONDS = 3600.0
# What the served model is taken for while no worker can be asked.
DIMENSIONS, MAX_TOKENS = 2048, 32_768

Result = TypeVar("Result")

# One space, or several with commas between them, each as it is or with its pool.
_ONE_SPACE = rf"(?:(?:{'|'.join(get_args(PoolName))})=)?[0-9A-Za-z_]+"
SPACES_PATTERN = rf"^{_ONE_SPACE}(?: *, *{_ONE_SPACE})*$"
_BULK = {"interactive": False, "bulk": True}


def limits_of(fleet: Fleet, settings: RouterSettings) -> Limits:
    """What a request must stay within."""
    info = fleet.info
    return Limits(
        settings.max_items,
        settings.max_image_bytes,
        settings.max_pdf_bytes,
        info.dimensions if info else DIMENSIONS,
        info.max_tokens if info else MAX_TOKENS,
        settings.model_aliases,
    )


def required_spaces(request: Request) -> Required:
    """The vector spaces that the client takes. Raises `Invalid`.

    They are written as digests, for every pool, or as the header `x-vector-space` of a reply has them.
    """
    header = request.header("x-require-vector-space")
    if header is None:
        return {}
    if re.fullmatch(SPACES_PATTERN, header) is None:
        raise Invalid.field(
            "header -> x-require-vector-space",
            "write vector spaces with commas between them, as x-vector-space of a reply names them",
            "vector_space",
            header,
        )
    spaces: defaultdict[str, set[str]] = defaultdict(set)
    for part in header.split(","):
        pool, _, space = part.strip().rpartition("=")
        spaces[pool].add(space)
    return {pool: frozenset(some) for pool, some in spaces.items()}


def space_header(spaces: Mapping[PoolName, str]) -> Header:
    """The header that names the vector space of each pool's results."""
    named = ", ".join(contract.space_header(pool, space) for pool, space in spaces.items())
    return SPACE_HEADER.encode(), named.encode()


def tokens_of(vectors: list[Vector]) -> int:
    """What the model read for them; the query of a ranking, which is read once a batch, is counted once."""
    return sum(vector.tokens for vector in vectors) + max(vector.query_tokens for vector in vectors)


async def gather(request: Request, fleet: Fleet, items: list[Item], seconds: float) -> list[Vector]:
    """The vectors of `items`, unless time runs out or the client leaves first.

    Adds the header that names their vector spaces to those of the request's reply.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finished() -> None:
        if not done.done():
            done.set_result(None)

    gather = fleet.submit(
        items,
        fleet.clock() + seconds,
        finished,
        request_id=request.id.decode(),
        span=request.span,
        required=required_spaces(request),
    )

    def end(error: Exception) -> None:
        gather.fail(error, fleet.clock())

    expiry = loop.call_later(seconds, lambda: end(TimedOut(f"not done within {seconds:.3g} seconds")))
    try:
        with request.watched(lambda: end(ClientGone())):
            await done
    finally:
        expiry.cancel()
        end(Unavailable("the router is stopping"))
        request.queue_seconds = gather.taken_at - gather.admitted_at
        request.inference_seconds = gather.done_at - gather.taken_at
    vectors = gather.vectors()
    if request.allowance is not None:
        request.allowance.used = tokens_of(vectors)
    request.reply_headers.append(space_header(gather.spaces))
    return vectors


def take_tokens(request: Request, items: list[Item]) -> None:
    """Take what `items` are estimated to cost of the key's limits. Raises `TokenRateExceeded`."""
    if request.allowance is not None:
        request.allowance.take(cost_of(items), time.monotonic())


def bulk_of(request: Request) -> bool | None:
    """The class that the client asks for, None when it leaves that to us. Raises `Invalid`."""
    priority = request.header("x-priority")
    if priority is None:
        return None
    if priority not in _BULK:
        raise Invalid.field("header -> x-priority", "write interactive or bulk", "literal_error", priority)
    return _BULK[priority]


def seconds_of(headers: Mapping[bytes, bytes], settings: RouterSettings) -> float:
    """The time that the request with `headers` has. Raises `Invalid`."""
    header = headers.get(b"x-request-timeout-seconds")
    if header is None:
        return settings.request_timeout_seconds
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT_SECONDS:
        raise Invalid.field(
            "header -> x-request-timeout-seconds",
            f"write a number of seconds over 0 and up to {LONGEST_TIMEOUT_SECONDS:g}",
            "timeout",
            header.decode("latin-1"),
        )
    return seconds


async def taking_turns(steps: Generator[None, None, Result]) -> Result:
    """What `steps` returns; whatever else is to be done comes between two of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        await asyncio.sleep(0)
