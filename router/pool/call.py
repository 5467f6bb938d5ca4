"""One call to a worker: sends a batch, reads the frames, checks every vector."""

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec
import numpy as np
from yarl import URL

from triptych.router.errors import Internal, Invalid, MediaInvalid, RouterError, TokenLimitExceeded
from triptych.router.items import Batch, Item
from triptych.router.pool.replica import Replica, State
from triptych.router.pool.transport import (
    TRANSPORT_ERRORS,
    is_out_of_descriptors,
    was_refused,
    was_sent,
)
from triptych.workers.shared import contract

# A reply with all its frames has to end within this time.
END_SECONDS = 2.0
# How far rounding may move the squared length of a normalized vector from 1.
LENGTH_TOLERANCE = 0.05
# Of a worker's message for the client.
MOST_CHARACTERS = 2000

TOKEN_REFUSED = "the worker refuses the token: set ROUTER_WORKER_TOKEN to its WORKER_TOKEN"
OUT_OF_DESCRIPTORS, REJECTED = "out_of_descriptors", "rejected"

Deliver = Callable[[Item, contract.Frame], None]


class ReplicaFailed(Exception):
    """The replica did not do its work; unfinished items may be tried again.

    `state` is its state from now on, READY for no change. `gone`: its process has ended. `perhaps_dead`: the
    worker had the batch, and its process may have died with it.
    """

    def __init__(
        self, reason: str, state: State = State.READY, *, gone: bool = False, perhaps_dead: bool = False
    ) -> None:
        super().__init__(reason)
        self.state = state
        self.gone = gone
        self.perhaps_dead = perhaps_dead


class Declined(Exception):
    """The replica took nothing of the batch, which is no failure. `outcome` says why, also in metrics.

    OVERLOADED: it has enough work; `seconds` is its estimate of when it has room, if it gives one.
    OUT_OF_DESCRIPTORS: the router can open no more connections. DRAINING: it is stopping.
    REJECTED: it calls the batch invalid, perhaps because of one item with a field of a newer version.
    """

    def __init__(self, outcome: str, reason: str = "", seconds: float | None = None) -> None:
        super().__init__(reason or outcome)
        self.outcome = outcome
        self.seconds = seconds


async def encode(client: aiohttp.ClientSession, replica: Replica, batch: Batch, deliver: Deliver) -> None:
    """Send `batch` to `replica`; `deliver` is called with each frame once it is checked.

    Returns when every item has had a frame. Raises `ReplicaFailed`, perhaps after some deliveries, or
    `Declined`. Cancelling closes the connection, and the worker drops the batch.
    """
    try:
        await _encode(client, replica, batch, deliver)
    except TRANSPORT_ERRORS as error:
        if is_out_of_descriptors(error):
            raise Declined(OUT_OF_DESCRIPTORS) from error
        refused = was_refused(error)
        reason = "connection refused" if refused else f"{type(error).__name__} {error}".strip()
        state = State.DOWN if refused else State.SUSPECT
        raise ReplicaFailed(reason, state, gone=refused, perhaps_dead=was_sent(error)) from error


async def _encode(client: aiohttp.ClientSession, replica: Replica, batch: Batch, deliver: Deliver) -> None:
    info = replica.info
    assert info is not None, "it was never ready. This is a bug."
    request = batch.request()
    missing: list[Item | None] = [*batch.items]
    left = len(missing)
    url = URL(f"http://{replica.address}{contract.ENCODE_PATH}")
    data = contract.encode_request(request)
    async with client.post(url, data=data, headers=batch.headers, allow_redirects=False) as reply:
        if reply.status != 200:
            raise await _failure(reply)
        if reply.headers.get(contract.SPACE_HEADER) != contract.space_header(replica.pool, batch.space):
            raise ReplicaFailed("it serves another vector space than at the last probe", State.DOWN)
        reader = contract.FrameReader()
        # The time is bounded only once all frames are there.
        async with asyncio.timeout(None) as limit:
            async for chunk in reply.content.iter_any():
                try:
                    for frame in reader.feed(chunk):
                        item = missing[frame.index] if 0 <= frame.index < len(missing) else None
                        if item is None:
                            raise ReplicaFailed(f"an unexpected frame, for index {frame.index}")
                        if isinstance(frame, contract.Vector):
                            check_vector(frame, request.items[frame.index], info)
                        missing[frame.index] = None
                        left -= 1
                        deliver(item, frame)
                except msgspec.DecodeError as error:
                    raise ReplicaFailed(f"a frame that cannot be read: {error}") from error
                if not left and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + END_SECONDS)
    if left:
        raise ReplicaFailed(f"the reply ended {left} frames early")


async def _failure(reply: aiohttp.ClientResponse) -> Exception:
    """The meaning of a reply other than 200."""
    state = reply.headers.get(contract.STATE_HEADER)
    if reply.status == 503 and state in (contract.OVERLOADED, contract.DRAINING):
        return Declined(state, seconds=_seconds(reply.headers.get(contract.WAIT_HEADER)))
    if state == contract.DEAD:
        return ReplicaFailed("the engine has died", State.DOWN, gone=True, perhaps_dead=True)
    if reply.status == 401:
        return ReplicaFailed(TOKEN_REFUSED, State.DOWN)
    reason = f"status {reply.status} {(await reply.read())[:500].decode(errors='replace')}"
    return Declined(REJECTED, reason) if 400 <= reply.status < 500 else ReplicaFailed(reason)


def _seconds(text: str | None) -> float | None:
    """A positive number of seconds, or None."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def client_error(item: Item, failure: contract.Failure) -> RouterError:
    """What the client reads of an item's own failure."""
    field = item.query.field if failure.query and item.query else item.field
    message = failure.message[:MOST_CHARACTERS]
    detail = f"{field}: {message}"
    match failure.code:
        case "token_limit":
            return TokenLimitExceeded(detail)
        case "media_invalid":
            return MediaInvalid(detail)
        case "unsupported" | "invalid":
            return Invalid.field(field, message, failure.code)
        case _:
            return Internal(detail)


def check_vector(vector: contract.Vector, item: contract.Item, info: contract.Info) -> None:
    """Raise `ReplicaFailed` unless `vector` has the shape, bytes, values and length that `item` asks for."""
    shape = vector.shape
    expected: tuple[int | None, ...] = (item.dimensions or info.dimensions,)
    if item.against is not None:
        expected = (1,)
    elif item.multivector:
        expected = (vector.tokens, info.multivector_dimensions)
    elif isinstance(item.content, contract.Document):
        expected = (len(item.content.chunks), *expected)
    if shape != expected or min(shape) < 1:
        raise ReplicaFailed(f"a vector of shape {shape} instead of {expected}")
    rows = shape[0] if len(shape) == 2 else 1
    if len(vector.data) != 4 * rows * shape[-1]:
        raise ReplicaFailed(f"{len(vector.data)} bytes for a vector of shape {shape}")
    values = np.frombuffer(vector.data, np.float32)
    length = float(np.dot(values, values))
    if not np.isfinite(length):
        raise ReplicaFailed("a vector with values that are not finite")
    unit = item.against is None and (item.normalized or item.multivector)
    if unit and abs(length / rows - 1) > LENGTH_TOLERANCE:
        raise ReplicaFailed(f"a vector of squared length {length / rows:.3f} instead of 1")
    if item.tokenized and len(vector.tokenized or ()) != vector.tokens:
        raise ReplicaFailed(f"not the texts of {vector.tokens} tokens")
