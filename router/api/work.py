"""What embeddings and ranking have in common: priority, deadline, limits, and the wait for results."""

import asyncio
import math
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import TracebackType
from typing import TypeVar

from triptych.router.api.body import LARGE_BYTES
from triptych.router.api.catalog import Catalog
from triptych.router.errors import ClientGone, Invalid, TimedOut, Unavailable
from triptych.router.http import Request
from triptych.router.items import Item, Job, Priority, RequiredSpaces, cost_of, queries_of, size_of
from triptych.router.media.loader import MediaLoader
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.served import Served
from triptych.router.settings import RouterSettings
from triptych.router.slots import FairSlots
from triptych.workers.shared.contract import SPACE_HEADER, Document, Vector, space_header
from triptych.workers.shared.families import BY_POOL, TASK_POOLS, Family

# Of each value of a vector: as float32, and as float32 with its JSON.
VECTOR_BYTES, REPLY_BYTES = 4, 16
# The inputs of a smaller body are not measured; they count as its bytes.
SMALL_BODY_BYTES = 64 << 10

Result = TypeVar("Result")

# Large bodies are parsed one at a time, since that holds the interpreter for most of it. Keys take turns.
_PARSER = ThreadPoolExecutor(1, thread_name_prefix="parser")
_PARSER_SLOT = FairSlots(1, 1)

# Comma-separated vector spaces, each alone or as pool=space. ECMAScript's syntax, for the OpenAPI document,
# lacks some escapes of `re.escape`.
_POOLS = "|".join(pool.replace(".", r"\.") for pool in TASK_POOLS)
_ONE_SPACE = rf"(?:(?:{_POOLS})=)?[0-9A-Za-z_]+"
SPACES_PATTERN = rf"^{_ONE_SPACE}(?: *, *{_ONE_SPACE})*$"


class Work:
    """One request for vectors or a ranking. Call `read`, then `load` the planned items, then `vectors`.

    An async context, within which all steps end by one deadline, or raise `TimedOut`. Its time starts here.
    Raises `Invalid` for wrong headers.
    """

    def __init__(self, request: Request, fleet: Fleet, media: MediaLoader, settings: RouterSettings) -> None:
        self.priority = priority_of(request)
        self._required = required_spaces(request)
        self._seconds = seconds_of(request.headers, settings)
        self._deadline = fleet.clock() + self._seconds
        self._timeout = asyncio.timeout(self._seconds)
        self._request = request
        self._fleet = fleet
        self._media = media
        self._settings = settings
        self._served: Mapping[Family, Served] = {}

    async def __aenter__(self) -> "Work":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            what = "the request body did not arrive" if self._request.cut_off else "not done"
            raise TimedOut(f"{what} within {self._seconds:g} seconds") from None

    async def read(self, parse: Callable[[bytes, Catalog], Result]) -> Result:
        """Read the request's body, see `Request.body`, and return what `parse` makes of it.

        `parse` also gets the models that it may name. A large body is parsed in a thread.
        """
        body = await self._request.body(self._settings.max_body_bytes)
        # Read here, since the fleet belongs to the event loop.
        self._served = self._fleet.served
        catalog = Catalog(self._served, self._settings.aliases)
        if len(body) <= LARGE_BYTES:
            return parse(body, catalog)
        async with _PARSER_SLOT.slot(self._request.key):
            return await asyncio.get_running_loop().run_in_executor(_PARSER, parse, body, catalog)

    async def load(self, items: list[Item]) -> list[Item]:
        """Charge `items` to the key's limits, then load their media, see `MediaLoader.load`.

        Raises `TokenRateExceeded`.
        """
        if self._request.allowance is not None:
            self._request.allowance.take_tokens(cost_of(items), time.monotonic())
        return await self._media.load(self._request, items)

    async def vectors(self, items: list[Item]) -> list[Vector]:
        """The vectors of `items`, in order; the reply gets the header that names their vector spaces.

        Raises `ClientGone` when the client leaves.
        """
        loop = asyncio.get_running_loop()
        clock = self._fleet.clock
        request = self._request
        memory = request.memory
        if memory.held > SMALL_BODY_BYTES:
            contents = [item.wire.content for item in items] + [query.content for query in queries_of(items)]
            # Twice, since they are copied when they are sent to a worker.
            memory.resize(2 * sum(map(size_of, contents)))
        inputs = memory.held
        family = BY_POOL[items[0].pool]
        served = self._served.get(family) or Served(family)
        memory.grow(reply_bytes(items, served, stream=request.takes_stream))
        done: asyncio.Future[None] = loop.create_future()

        def finished(_: Job) -> None:
            if not done.done():
                done.set_result(None)

        id = request.id.decode()
        job = Job(items, clock(), self._deadline, finished, id, request.span, self._required, request.key)
        self._fleet.submit(job)

        def end(error: Exception) -> None:
            job.fail(error, clock())

        try:
            with request.watched(lambda: end(ClientGone())):
                await done
            vectors = job.vectors()
        finally:
            # Has an effect only if this task was cancelled, at the deadline or as the router stops: a closed
            # job ignores it.
            end(Unavailable("the request was given up"))
            if request.allowance is not None and job.error is not None:
                request.allowance.used = cost_of([item for item in job.items if item.was_sent])
            request.queue_seconds = job.started_at - job.admitted_at
            request.inference_seconds = job.done_at - job.started_at
            job.release()
        if items[0].wire.multivector:
            values = sum(len(vector.data) for vector in vectors) // VECTOR_BYTES
            memory.exceed(inputs + values * (VECTOR_BYTES if request.takes_stream else REPLY_BYTES))
        if request.allowance is not None:
            request.allowance.used = tokens_of(vectors)
        spaces = ", ".join(space_header(pool, space) for pool, space in job.spaces.items())
        request.reply_headers.append((SPACE_HEADER.encode(), spaces.encode()))
        return vectors


def required_spaces(request: Request) -> RequiredSpaces:
    """The vector spaces that the client accepts, from `x-require-vector-space`. Raises `Invalid`.

    A space without a pool stands for every pool.
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


def tokens_of(vectors: list[Vector]) -> int:
    """Tokens that the model read. The query of a ranking counts once."""
    return sum(vector.tokens for vector in vectors) + max(vector.query_tokens for vector in vectors)


def priority_of(request: Request) -> Priority | None:
    """The priority that the client asks for, None if it does not. Raises `Invalid`."""
    name = request.header("x-priority")
    if name is None:
        return None
    for priority in Priority:
        if priority.label == name:
            return priority
    raise Invalid.field("header -> x-priority", "write interactive or bulk", "literal_error", name)


def seconds_of(headers: Mapping[bytes, bytes], settings: RouterSettings) -> float:
    """The time that a request with `headers` has. Raises `Invalid`."""
    header = headers.get(b"x-request-timeout-seconds")
    if header is None:
        return settings.request_timeout_seconds
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    longest = settings.max_request_timeout_seconds
    if not 0 < seconds <= longest:
        raise Invalid.field(
            "header -> x-request-timeout-seconds",
            f"write a number of seconds over 0 and up to {longest:g}",
            "timeout",
            header.decode("latin-1"),
        )
    return seconds


async def whole(pieces: Iterator[bytes], *, stream: bool = False) -> bytes | deque[bytes] | Iterator[bytes]:
    """The body of a reply. Other tasks may run between two pieces.

    A body of one piece is that piece. With `stream`, others are made while they are sent.
    """
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        return first
    if stream:
        return chain((first, second), pieces)
    all_pieces = deque((first, second))
    for piece in pieces:
        all_pieces.append(piece)
        await asyncio.sleep(0)
    return all_pieces


def reply_bytes(items: Sequence[Item], served: Served, *, stream: bool) -> int:
    """Memory that the results of `items` will need. All have the same options.

    With `stream`, multi-vectors become JSON while they are sent.
    """
    first = items[0].wire
    if first.multivector:
        values = cost_of(items) * served.multivector_dimensions
        return values * (VECTOR_BYTES if stream else REPLY_BYTES)
    if items[0].query is not None:
        return 0
    rows = len(first.content.chunks) if isinstance(first.content, Document) else len(items)
    return rows * (first.dimensions or served.dimensions) * REPLY_BYTES
