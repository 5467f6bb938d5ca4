"""All pools together: admits a request over those it needs, and says what is ready and what is served."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from router.errors import QueueFull, Unavailable
from router.items import Gather, Item, Required, cost_of
from router.observe.metrics import Metrics
from router.observe.tracing import Tracing
from router.pool.discovery import Discovery, source_of
from router.pool.health import Prober
from router.pool.observer import PoolObserver
from router.pool.pool import RETRY_AFTER, Pool
from router.pool.queue import PoolQueue
from router.pool.replica import UP, Replica, State
from router.pool.targets import TargetGroup, change
from router.pool.transport import AiohttpClient, WorkerClient
from router.settings import RouterSettings
from workers.shared import contract

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
FIRST_LOOK_SECONDS = 2.0
RERANK_POOL: contract.PoolName = "rerank"


@dataclass(frozen=True, slots=True)
class Gauges:
    """How much of a pool is in use at this moment."""

    waiting_items: int
    waiting_tokens: int
    batches_in_flight: int
    tokens_in_flight: int
    lanes_in_use: int


class _Watched(NamedTuple):
    prober: Prober
    task: asyncio.Task[None]


class Fleet:
    """The pools of the workers that are named. Used as an async context: probing lasts as long as it does.

    Entering it takes until every worker was looked at once, or for two seconds: of several router
    processes, one that has only just started would otherwise refuse what the others could serve.
    """

    def __init__(
        self,
        settings: RouterSettings,
        make_client: Callable[..., WorkerClient] = AiohttpClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pools: dict[contract.PoolName, Pool] = {}
        self._settings = settings
        self._make_client = make_client
        self.clock = clock
        self.metrics = Metrics()
        self.tracing = Tracing.configured()
        self._watched: dict[Replica, _Watched] = {}
        self._leaving: list[Pool] = []
        self._requests = 0
        self._may_be_empty: frozenset[contract.PoolName] = frozenset()
        self._discovery: Discovery | None = None
        self._discovering: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Fleet":
        settings = self._settings
        self._client = self._make_client(
            CONNECT_SECONDS, settings.worker_timeout_seconds, settings.worker_token
        )
        if settings.workers:
            # What is named here without a worker can never have one.
            self.apply(group for group in settings.workers if group.targets)
        if settings.discovery is not None:
            token = settings.discovery_token
            source = source_of(
                settings.discovery, token.get_secret_value() if token else None, settings.discovery_seconds
            )
            self._discovery = Discovery(source, "ROUTER_DISCOVERY", settings.discovery_seconds, self.apply)
            self._discovering = asyncio.get_running_loop().create_task(self._discovery.run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._look_around()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [watched.task for watched in self._watched.values()]
        if self._discovering is not None:
            tasks.append(self._discovering)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in [*self.pools.values(), *self._leaving]:
            await pool.close()
        await self._client.close()

    @property
    def waiting_for(self) -> str | None:
        """Why it is not known yet which workers there are, None when it is."""
        if self.pools or self._discovery is None:
            return None
        return f"ROUTER_DISCOVERY: {self._discovery.trouble}"

    def apply(self, groups: Iterable[TargetGroup]) -> None:
        """Serve with the workers of `groups`, and no others, from now on.

        A worker that is new is probed at once. One that is not named any more is given nothing further and
        finishes what it has. A pool that is named without workers stays, and may hold what comes for it; what
        waits for one that is not named any more is refused.
        """
        groups = tuple(groups)
        named = dict.fromkeys(group.labels.task for group in groups)
        self._may_be_empty = frozenset(
            group.labels.task for group in groups if group.labels.min_replicas == "0"
        )
        removed, added = change(self.addresses, groups)
        versions = {address: group.labels.version for group in groups for address in group.targets}
        touched = [name for name, _ in (*removed, *added)]
        touched += [name for name in named if name not in self.pools]
        touched += [name for name in self.pools if name not in named]
        for name, address in removed:
            log.info("replica %s of pool %s is removed", address, name)
        came: dict[contract.PoolName, list[Replica]] = defaultdict(list)
        for name, address in added:
            replica = Replica(address, name, self._settings.lanes, self._client, self.clock)
            came[name].append(replica)
        self._leaving = [pool for pool in self._leaving if pool.in_flight]
        for name in dict.fromkeys(touched):
            pool = self.pools.get(name) or self._empty_pool(name)
            self.pools[name] = pool
            if pool.up:
                # Where all are replaced at once, what waits goes on waiting until the new ones were probed.
                for replica in came[name]:
                    replica.expect()
            gone = [replica for replica in pool.replicas if (name, replica.address) in removed]
            for replica in gone:
                self._forget(replica)
            if name not in named:
                self._leaving.append(self.pools.pop(name))
                pool.leave()
                continue
            pool.set_replicas([replica for replica in (*pool.replicas, *came[name]) if replica not in gone])
            for replica in came[name]:
                self._watch(pool, replica)
        for pool in self.pools.values():
            for replica in pool.replicas:
                replica.version = versions[replica.address]

    @property
    def targets(self) -> list[tuple[contract.PoolName, str | None, str]]:
        """Every worker: its pool, its version and its address."""
        return [
            (name, replica.version, replica.address)
            for name, pool in self.pools.items()
            for replica in pool.replicas
        ]

    @property
    def addresses(self) -> dict[contract.PoolName, list[str]]:
        """Each pool, with the addresses of its replicas."""
        return {name: [replica.address for replica in pool.replicas] for name, pool in self.pools.items()}

    @property
    def info(self) -> contract.Info | None:
        """What a ready replica says of the model, the same for all pools of its variants."""
        return next(
            (
                replica.info
                for pool in self.pools.values()
                for replica in pool.replicas
                if replica.state is State.READY and pool.name != RERANK_POOL
            ),
            None,
        )

    @property
    def spaces(self) -> dict[contract.PoolName, list[str]]:
        """The vector spaces that each pool serves now."""
        return {name: pool.spaces for name, pool in self.pools.items()}

    def not_ready(self) -> dict[contract.PoolName, str]:
        """The pools without a ready replica, and why; but for those that need none until there is work."""
        return {
            name: "; ".join(f"{replica.address}: {replica.reason}" for replica in pool.replicas)
            or "no replica"
            for name, pool in self.pools.items()
            if not pool.ready and not self._at_rest(pool)
        }

    def gauges(self) -> dict[contract.PoolName, Gauges]:
        """What each pool has waiting and in flight."""
        return {
            name: Gauges(
                pool.queue.items,
                pool.queue.tokens,
                len(pool.in_flight),
                sum(replica.tokens_in_flight for replica in pool.replicas),
                sum(replica.lanes_in_use for replica in pool.replicas),
            )
            for name, pool in self.pools.items()
        }

    def check_any_room(self, deadline: float) -> None:
        """Raise `QueueFull` when no pool can take anything by `deadline`, whatever a request may ask for.

        So most of what is refused under overload is refused before it is read, for a part of what it costs to
        refuse it afterwards; that time is wanted for what was accepted.
        """
        full: QueueFull | None = None
        for pool in self.pools.values():
            try:
                pool.check_any_room(deadline)
            except QueueFull as error:
                full = error
            else:
                return
        if full is not None:
            self._refused_unread()
            raise full

    def submit(
        self,
        items: Sequence[Item],
        deadline: float,
        finished: Callable[[], None],
        *,
        request_id: str = "",
        span: "Span | None" = None,
        required: Required | None = None,
    ) -> Gather:
        """Let all of `items` wait for their pools, or none; `finished` is called when the gather is closed.

        `required` are the vector spaces that the client takes. Raises `Unavailable` when a
        pool has no ready replica and holds nothing, `QueueFull` when one has no room, `SpaceMismatch` when
        one serves another vector space, `CrashesWorker` for an item that workers died with.
        """
        parts: dict[Pool, list[Item]] = defaultdict(list)
        for item in items:
            parts[self._pool(item.pool)].append(item)
        self._requests += 1
        for pool, part in parts.items():
            pool.came(cost_of(part))

        def close(gather: Gather) -> None:
            if gather.error is not None:
                for pool, part in parts.items():
                    pool.forget(part)
            finished()

        gather = Gather(items, self.clock(), deadline, close, request_id, span, required)
        for pool, part in parts.items():
            pool.check_room(part, deadline, gather.required_of(pool.name))

        for pool, part in parts.items():
            pool.admit(part)
        return gather

    def _pool(self, name: contract.PoolName) -> Pool:
        try:
            return self.pools[name]
        except KeyError:
            raise Unavailable(f"no worker serves the pool {name} here", retry_after=RETRY_AFTER) from None

    def _refused_unread(self) -> None:
        """Count a request that was not looked at as one like all so far: how much is asked for says how many
        replicas there should be, and of what is refused under overload most is refused unread."""
        if self._requests:
            for pool in self.pools.values():
                pool.came(pool.requested_tokens / self._requests)
            self._requests += 1

    def _at_rest(self, pool: Pool) -> bool:
        """Whether it is as it should be that the pool has no replica: it may have none, and holds work."""
        return pool.holds and not pool.replicas and pool.name in self._may_be_empty

    async def _look_around(self) -> None:
        if self._discovery is not None:
            await self._discovery.looked.wait()
        for watched in list(self._watched.values()):
            await watched.prober.looked.wait()

    def _watch(self, pool: Pool, replica: Replica) -> None:
        prober = Prober(replica, self._client, self._judge, self._settings.probe_seconds)

        def changed() -> None:
            prober.wake()
            pool.replicas_changed()

        replica.changed = changed
        task = asyncio.get_running_loop().create_task(prober.run())
        self._watched[replica] = _Watched(prober, task)

    def _forget(self, replica: Replica) -> None:
        self._watched.pop(replica).task.cancel()
        replica.changed = lambda: None
        replica.remove()

    def _empty_pool(self, name: contract.PoolName) -> Pool:
        settings = self._settings
        return Pool(
            name,
            [],
            PoolQueue(settings.queue_tokens, settings.queue_items),
            settings.batch_tokens,
            settings.batch_items,
            self.clock,
            PoolObserver(self.metrics.pool(name), self.tracing, self.clock),
            settings.hold_seconds,
        )

    def _judge(self, replica: Replica, info: contract.Info) -> str | None:
        """Why `replica` must not serve: vectors of another task or size would be wrong without a sign."""
        if info.task != replica.pool:
            return f"it serves the task {info.task}, not {replica.pool}; start it with that task's checkpoint"
        for pool in self.pools.values():
            for other in pool.replicas:
                if other is replica or other.state not in UP or other.info is None:
                    continue
                if RERANK_POOL not in (replica.pool, pool.name) and info.dimensions != other.info.dimensions:
                    return f"it has {info.dimensions} dimensions, {other.address} has {other.info.dimensions}"
                if (
                    pool.name == replica.pool
                    and info.space != other.info.space
                    and replica.version == other.version
                ):
                    return (
                        f"its vector space is {info.space}, but {other.address} serves {other.info.space}: "
                        "give it the same checkpoint, dtype and quantization, or declare an upgrade by "
                        "different labels `version` in the discovery document"
                    )
        return None
