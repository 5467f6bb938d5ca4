"""Health checks: probes each replica and verifies what it serves."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

import aiohttp
import msgspec
from yarl import URL

from triptych.router.pool.call import TOKEN_REFUSED, ReplicaFailed
from triptych.router.pool.replica import UP, Replica, State
from triptych.router.pool.transport import (
    CONNECT_SECONDS,
    TRANSPORT_ERRORS,
    is_out_of_descriptors,
    was_refused,
)
from triptych.workers.shared import contract
from triptych.workers.shared.families import BY_POOL

log = logging.getLogger(__name__)

# First and longest pause between probes of a replica that is down.
RETRY_SECONDS = (0.25, 2.0)
TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=CONNECT_SECONDS)
# A busy machine may answer late: only this many timeouts in a row count, with no batch done in between.
SILENCES_UNTIL_DOWN = 3


def why_refused(replica: Replica, info: contract.Info, others: Iterable[Replica]) -> str | None:
    """Why `replica` must not serve beside `others`: it has vectors of another kind. None if it may."""
    if info.task != replica.pool:
        return f"it serves the task {info.task}, not {replica.pool}; start it with that task's checkpoint"
    for other in others:
        if other is replica or other.state not in UP or other.info is None:
            continue
        # Vectors of different models cannot be compared, and rerankers have none.
        if BY_POOL[other.pool] is not BY_POOL[replica.pool]:
            continue
        if info.dimensions != other.info.dimensions:
            return f"it has {info.dimensions} dimensions, {other.address} has {other.info.dimensions}"
        same_version = other.pool == replica.pool and other.version == replica.version
        if same_version and info.space != other.info.space:
            return (
                f"its vector space is {info.space}, but {other.address} serves {other.info.space}: use the "
                "same checkpoint, dtype and quantization, or declare an upgrade by different labels "
                "`version` in the discovery document"
            )
    return None


class Prober:
    """Probes one replica: often while it is down, seldom while it is up.

    `replicas` are all those that it may serve beside. `probed` is set after the first probe.
    `retry_seconds` are the first and the longest pause while it is down.
    """

    def __init__(
        self,
        replica: Replica,
        client: aiohttp.ClientSession,
        replicas: Callable[[], Iterable[Replica]],
        seconds_while_up: float,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
    ) -> None:
        self._replica = replica
        self._client = client
        self._replicas = replicas
        self._seconds_while_up = seconds_while_up
        self._first_retry, self._longest_retry = retry_seconds
        self.probed = asyncio.Event()
        self._woken = asyncio.Event()
        self._refusal: str | None = None
        self._silences = 0

    def wake(self) -> None:
        """Probe now: the replica's state has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        replica = self._replica
        wait = self._first_retry
        while True:
            successes = replica.successes
            await self._probe()
            self.probed.set()
            # A change before this point is visible in the state.
            self._woken.clear()
            if replica.state is State.READY:
                wait = self._first_retry
                # Traffic that succeeds is the better probe.
                while replica.state is State.READY:
                    await self._sleep(self._seconds_while_up)
                    if replica.successes == successes:
                        break
                    successes = replica.successes
                    self._silences = 0
            else:
                await self._sleep(wait)
                wait = min(wait * 2, self._longest_retry)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _probe(self) -> None:
        try:
            info = contract.decode_info(await self._get(contract.INFO_PATH))
            await self._get(contract.READY_PATH)
        except ReplicaFailed as error:
            self._refuse(str(error))
        except _NotReady as error:
            self._lost(str(error))
        except msgspec.DecodeError as error:
            self._lost(f"its info is invalid: {error}")
        except TRANSPORT_ERRORS as error:
            self._unanswered(error)
        else:
            self._silences = 0
            if refusal := why_refused(self._replica, info, self._replicas()):
                self._refuse(refusal)
            else:
                self._replica.up(info)
                self._refusal = None

    def _unanswered(self, error: Exception) -> None:
        if is_out_of_descriptors(error):
            return
        self._silences += 1
        refused = was_refused(error)
        if refused or self._replica.state is not State.READY or self._silences >= SILENCES_UNTIL_DOWN:
            reason = "connection refused" if refused else str(error) or type(error).__name__
            self._lost(reason, gone=refused)

    def _refuse(self, refusal: str) -> None:
        replica = self._replica
        if refusal != self._refusal:
            log.error("%s is refused: %s", replica, refusal)
        replica.down(refusal)
        self._refusal = refusal

    def _lost(self, reason: str, *, gone: bool = False) -> None:
        # A draining replica still finishes what it has, so a failed probe does not change its state.
        if self._replica.state is not State.DRAINING or gone:
            self._replica.down(reason, gone=gone)

    async def _get(self, path: str) -> bytes:
        url = URL(f"http://{self._replica.address}{path}")
        async with self._client.get(url, timeout=TIMEOUT, allow_redirects=False) as reply:
            if reply.status == 401:
                raise ReplicaFailed(TOKEN_REFUSED)
            if reply.status != 200:
                raise _NotReady(f"{path} answers {reply.status}")
            return await reply.read()


class _NotReady(Exception):
    """The worker answers that it is not ready."""
