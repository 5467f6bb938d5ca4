"""One worker at its address: gives it batches, checks every vector that comes back, knows its state."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

import msgspec
import numpy as np
from yarl import URL

from router.items import Batch, Item
from router.pool.breaker import Breaker, BreakerState
from router.pool.pace import Pace
from router.pool.transport import TRANSPORT_ERRORS, WorkerClient, WorkerReply, was_refused, was_sent
from workers.shared import contract

log = logging.getLogger(__name__)

# An overloaded replica that does not say for how long is left alone for this long, or up to twice as long.
PAUSE_SECONDS = 0.05
# No longer, whatever it says.
LONGEST_PAUSE_SECONDS = 2.0
# A probe that follows a lost connection has told by then whether the worker's process still lives.
VERDICT_SECONDS = 12.0
# A reply that has all its frames has to end within this time.
END_SECONDS = 2.0
# How far the squared length of a normalised vector may be from 1 before it cannot be rounding.
LENGTH_TOLERANCE = 0.05


class State(Enum):
    """Whether a replica may be given work; READY only ever comes from a probe.

    SUSPECT is the moment between a lost connection and the probe that tells whether the replica died.
    """

    DOWN = "down"
    SUSPECT = "suspect"
    READY = "ready"
    DRAINING = "draining"


UP = (State.READY, State.SUSPECT)


class ReplicaFailed(Exception):
    """The replica did not do its work; what is unfinished may be tried again.

    `perhaps_dead`: the worker had the batch, and its process may have died with it.
    """

    perhaps_dead = False


class EngineDied(ReplicaFailed):
    """The worker says that its engine died with the batch."""


class Overloaded(Exception):
    """The replica took nothing of the batch because it has enough; it has not failed.

    `seconds`: after which there should be room, where it says so.
    """

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("overloaded")
        self.seconds = seconds


class Draining(Exception):
    """The replica is stopping and took nothing of the batch."""


class Rejected(Exception):
    """The replica says that our batch is wrong; trying again cannot help."""


class TokenRefused(ReplicaFailed):
    """The worker answers 401."""

    def __init__(self) -> None:
        super().__init__("the worker refuses our token: set ROUTER_WORKER_TOKEN to its WORKER_TOKEN")


class Replica:
    """`changed` is called when the state has; `lanes` bounds the batches that it has at a time."""

    def __init__(
        self,
        address: str,
        pool: contract.PoolName,
        lanes: int,
        client: WorkerClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.pool = pool
        self.state = State.DOWN
        self.reason = "not seen yet"
        self.info: contract.Info | None = None
        self.breaker = Breaker()
        self.pace = Pace()
        # By class: the one for bulk is the second.
        self._paused_until = [0.0, 0.0]
        self.successes = 0
        self.tokens_in_flight = 0
        self.lanes_in_use = 0
        self.bulk_lanes_in_use = 0
        self.quarantined = False
        self.version: str | None = None
        self.changed: Callable[[], None] = lambda: None
        self.lanes = lanes
        self._client = client
        self._clock = clock
        self._url = URL(f"http://{address}{contract.ENCODE_PATH}")
        self._nothing_done = False
        self._gone = False
        self._judged = asyncio.Event()
        self._removed = False

    @property
    def space(self) -> str:
        """The vector space of its results; "" before it was first seen."""
        return self.info.space if self.info else ""

    def has_free_lane(self, now: float, *, bulk: bool = False) -> bool:
        """Whether it would take a batch now, of bulk or for queries.

        One that is not sound gets one at a time until it succeeds, and one that is slow as long as it is.
        """
        lanes = self.lanes if self.sound and not self.pace.slow else 1
        return (
            self.state is State.READY
            and self.lanes_in_use < lanes
            and not self.quarantined
            and self._paused_until[bulk] <= now
            and self.breaker.state(now) is not BreakerState.OPEN
        )

    def usable(self, now: float) -> bool:
        """Whether it is, or may be, one that serves: up, and not left alone for its failures."""
        if self.state is State.READY:
            return self.breaker.state(now) is not BreakerState.OPEN
        return self.state is State.SUSPECT

    @property
    def sound(self) -> bool:
        """Whether it is ready and its last batch did not fail, nor all that was in it."""
        return self.state is State.READY and not self.breaker.failures and not self._nothing_done

    def up(self, info: contract.Info) -> None:
        """A probe has found it ready."""
        restarted = self.info is not None and self.info.instance != info.instance
        self.info = info
        if self._gone or restarted:
            # Another process than the one that failed.
            self.breaker = Breaker()
            self.pace = Pace()
            self._nothing_done = False
            self._gone = False
        if restarted and self.state is State.READY:
            # Its vector space may be another one too.
            self.changed()
        self._become(State.READY, "ready")

    def down(self, reason: str, *, gone: bool = False) -> None:
        """It cannot be given work; `gone` says that nothing listens there any more."""
        self._gone = self._gone or gone
        self._become(State.DOWN, reason)

    def suspect(self, reason: str) -> None:
        """It may be gone: it is given nothing until a probe, which follows at once, has looked."""
        if self.state is State.READY:
            self._judged.clear()
            self._become(State.SUSPECT, reason)

    def expect(self) -> None:
        """Treat a new replica as up until its first probe."""
        self._judged.clear()
        self.state = State.SUSPECT

    def remove(self) -> None:
        """It is not probed any more; what it has been given it may still finish."""
        self._removed = True
        self._judged.set()

    async def has_died(self, instance: str) -> bool:
        """Whether there is evidence that the process `instance` has ended; waits for the probe that tells.

        Evidence is a port that refuses connections, or another process behind it. A worker that is stopping,
        removed or silent may have done nothing wrong.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(VERDICT_SECONDS):
                while self.state is State.SUSPECT and not self._removed:
                    await self._judged.wait()
        return self._gone or (self.info is not None and self.info.instance != instance)

    def draining(self) -> None:
        """It is stopping: what it has it finishes, more it does not take."""
        self._become(State.DRAINING, "draining")

    def pause(self, seconds: float | None, now: float, *, bulk: bool = False) -> float:
        """Give it nothing of a class for `seconds`, because it has enough of that; returns until when.

        Or until a batch of that class is done. Batches that were in flight together are refused together:
        that is once. Where it does not say for how long, that is by chance, so that several routers do not
        ask in step.
        """
        if now >= self._paused_until[bulk]:
            if seconds is None:
                seconds = PAUSE_SECONDS * random.uniform(1, 2)
            self._paused_until[bulk] = now + min(seconds, LONGEST_PAUSE_SECONDS)
        return self._paused_until[bulk]

    def hold(self, batch: Batch) -> None:
        """Take a lane for `batch`, until `release`; a suspect takes all of them."""
        self.quarantined = batch.suspect
        self.lanes_in_use += 1
        self.bulk_lanes_in_use += batch.bulk
        self.tokens_in_flight += batch.tokens

    def release(self, batch: Batch) -> None:
        """Give back the lane of `batch`."""
        self.quarantined = False
        self.lanes_in_use -= 1
        self.bulk_lanes_in_use -= batch.bulk
        self.tokens_in_flight -= batch.tokens

    async def encode(self, batch: Batch, deliver: Callable[[Item, contract.Frame], None]) -> str:
        """Have `batch` done; `deliver` is called with each frame that ends an item, once it has been checked.

        Returns when every item has had a frame: the reason why the last of those failed that failed inside,
        which are not delivered, since the batch as a whole may have one more try for them; "" when none did.
        Raises `ReplicaFailed`, `Overloaded`, `Draining` or `Rejected`, each after as many deliveries as
        there were. Cancelling it closes the connection, which the worker takes as the end of the batch.

        A batch of which every item failed inside is no success: its engine may have died, and would look very
        fast. It is no failure for the breaker either, or a few items that no replica can do would close
        the pool to all others.
        """
        started, in_flight = self._clock(), self.tokens_in_flight
        inside: list[str] = []

        def sort(item: Item, frame: contract.Frame) -> None:
            if isinstance(frame, contract.Failure) and frame.code == "internal":
                inside.append(frame.message)
            else:
                deliver(item, frame)

        try:
            await self._encode(batch, sort)
        except TRANSPORT_ERRORS as error:
            reason = f"{type(error).__name__} {error}".strip()
            if was_refused(error):
                self.down("connection refused", gone=True)
            else:
                self.suspect(reason)
            failure = self._failed(reason, started)
            failure.perhaps_dead = was_sent(error)
            raise failure from error
        except ReplicaFailed as error:
            failure = self._failed(str(error), started)
            failure.perhaps_dead = isinstance(error, EngineDied)
            raise failure from error
        # There is room again; whose turn it is, the worker sees to.
        self._paused_until[batch.bulk] = 0.0
        self._nothing_done = len(inside) == len(batch.items)
        if not self._nothing_done:
            self.breaker.succeeded()
            self.pace.observe(in_flight, self._clock() - started)
            self.successes += 1
        return inside[-1] if inside else ""

    async def _encode(self, batch: Batch, deliver: Callable[[Item, contract.Frame], None]) -> None:
        info = self.info
        if info is None:
            raise ReplicaFailed("it was never ready. This is a bug.")
        items = batch.items
        request = batch.request()
        body = contract.encode_request(request)
        missing: list[Item | None] = [*items]
        async with self._client.post(self._url, body, batch.headers) as reply:
            if reply.status != 200:
                await self._refuse(reply)
            if reply.headers.get(contract.SPACE_HEADER) != contract.space_header(self.pool, batch.space):
                self.down("it serves another vector space than when it was last asked")
                raise ReplicaFailed("the vectors are of another vector space")
            reader = contract.FrameReader()
            left = len(missing)
            # Without a limit until all frames are there; then the reply has to end.
            async with asyncio.timeout(None) as limit:
                async for chunk in reply.content.iter_any():
                    try:
                        for frame in reader.feed(chunk):
                            item = missing[frame.index] if 0 <= frame.index < len(missing) else None
                            if item is None:
                                raise ReplicaFailed(
                                    f"a frame for index {frame.index}, not asked for or had before"
                                )
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

    async def _refuse(self, reply: WorkerReply) -> None:
        """Raise what a reply other than 200 means."""
        state = reply.headers.get(contract.STATE_HEADER)
        if reply.status == 503 and state == contract.OVERLOADED:
            raise Overloaded(_seconds(reply.headers.get(contract.WAIT_HEADER)))
        if reply.status == 503 and state == contract.DRAINING:
            raise Draining
        if state == contract.DEAD:
            self.down("the engine has died", gone=True)
            raise EngineDied("the engine has died")
        if reply.status == 401:
            refused = TokenRefused()
            self.down(str(refused))
            raise refused
        text = (await reply.read())[:500].decode(errors="replace")
        if 400 <= reply.status < 500:
            raise Rejected(f"{reply.status} {text}")
        raise ReplicaFailed(f"status {reply.status} {text}")

    def _failed(self, reason: str, started: float) -> ReplicaFailed:
        now = self._clock()
        self.breaker.failed(started, now)
        if self.breaker.state(now) is BreakerState.OPEN:
            self.reason = f"{self.breaker.failures} failures in a row, the last: {reason}"
            log.warning(
                "replica %s of pool %s is left alone for %.1f s: %s",
                self.address,
                self.pool,
                self.breaker.open_until - now,
                self.reason,
            )
        return ReplicaFailed(f"replica {self.address}: {reason}")

    def _become(self, state: State, reason: str) -> None:
        self.reason = reason
        if state is self.state:
            return
        self.state = state
        if state is not State.SUSPECT:
            self._judged.set()
        level = logging.INFO if state is State.READY else logging.WARNING
        log.log(level, "replica %s of pool %s is %s: %s", self.address, self.pool, state.value, reason)
        self.changed()


def _seconds(text: str | None) -> float | None:
    """What a replica says of when there is room; None where that is no time to wait for."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def check_vector(vector: contract.Vector, wire: contract.Item, info: contract.Info) -> None:
    """Raise `ReplicaFailed` unless `vector` is what `wire` asked for: shape, bytes, finite, normalised.

    A wrong vector would be answered with 200, and nobody would know.
    """
    shape = vector.shape
    expected: tuple[int | None, ...] = (wire.dimensions or info.dimensions,)
    if wire.against is not None:
        expected = (1,)
    elif wire.multivector:
        expected = (vector.tokens, info.multivector_dimensions)
    elif isinstance(wire.content, contract.Document):
        expected = (len(wire.content.chunks), *expected)
    if shape != expected or min(shape) < 1:
        raise ReplicaFailed(f"a vector of shape {shape} where {expected} was asked for")
    rows = shape[0] if len(shape) == 2 else 1
    if len(vector.data) != 4 * rows * shape[-1]:
        raise ReplicaFailed(f"{len(vector.data)} bytes for a vector of shape {shape}")
    values = np.frombuffer(vector.data, np.float32)
    length = float(np.dot(values, values))
    if not np.isfinite(length):
        raise ReplicaFailed("a vector with values that are not finite")
    unit = wire.against is None and (wire.normalized or wire.multivector)
    if unit and abs(length / rows - 1) > LENGTH_TOLERANCE:
        raise ReplicaFailed(f"a vector whose squared length is {length / rows:.3f} where 1 was asked for")
    if vector.tokens < 1:
        raise ReplicaFailed("a vector of no tokens")
