"""All pools together: which workers they have, and the admission of requests over them."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from triptych.router.errors import QueueFull, RouterError, Unavailable
from triptych.router.items import Item, Job, RequiredSpaces, bound_priority, cost_of
from triptych.router.observe.metrics import Metrics
from triptych.router.observe.tracing import Tracing
from triptych.router.pool import call
from triptych.router.pool.discovery import Discovery, discovery_of
from triptych.router.pool.dispatcher import RETRY_AFTER
from triptych.router.pool.health import Prober, why_refused
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.pool import Pool
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica
from triptych.router.pool.served import Served, Serving, served_by, serving
from triptych.router.pool.targets import TargetGroup, change
from triptych.router.pool.transport import AiohttpClient, WorkerClient
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract
from triptych.workers.shared.families import BY_POOL, Family

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
FIRST_PROBES_SECONDS = 2.0


class _Watched(NamedTuple):
    prober: Prober
    task: asyncio.Task[None]


class Fleet:
    """The pools of the workers that are named. An async context: workers are probed while it lasts.

    `pools` are those of the workers, `serving` those of tasks, each with what serves it.

    Entering it waits for the first probe of every worker, up to two seconds. Otherwise, of several router
    processes, one that has just started would refuse requests that the others could serve.
    """

    def __init__(
        self,
        settings: RouterSettings,
        make_client: Callable[..., WorkerClient] = AiohttpClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pools: dict[contract.PoolName, Pool] = {}
        self.serving: dict[contract.PoolName, Serving] = {}
        self._in_use: tuple[Pool, ...] = ()
        self.clock = clock
        self.metrics = Metrics()
        self.tracing = Tracing.configured(settings.trust_traceparent)
        self._settings = settings
        self._make_client = make_client
        self._watched: dict[Replica, _Watched] = {}
        self._removed: list[Pool] = []
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
            # A pool that the settings name without a worker can never have one.
            self.apply(group for group in settings.workers if group.targets)
        self._discovery = discovery_of(settings, self.apply)
        if self._discovery is not None:
            self._discovering = asyncio.get_running_loop().create_task(self._discovery.run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PROBES_SECONDS):
                await self._first_probes()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [watched.task for watched in self._watched.values()]
        if self._discovering is not None:
            tasks.append(self._discovering)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in [*self.pools.values(), *self._removed]:
            await pool.close()
        await self._client.close()

    @property
    def waiting_for(self) -> str | None:
        """Why the workers are not known yet; None when they are."""
        if self.pools or self._discovery is None:
            return None
        return f"ROUTER_DISCOVERY: {self._discovery.trouble}"

    @property
    def targets(self) -> list[tuple[contract.PoolName, str | None, str]]:
        """Pool, version and address of every worker."""
        return [(replica.pool, replica.version, replica.address) for replica in self._replicas()]

    @property
    def addresses(self) -> dict[contract.PoolName, list[str]]:
        """The addresses of each pool's replicas."""
        return {name: [replica.address for replica in pool.replicas] for name, pool in self.pools.items()}

    @property
    def served(self) -> dict[Family, Served]:
        """The families of the pools; the family of the first pool comes first."""
        return served_by(self.pools.values())

    @property
    def spaces(self) -> dict[contract.PoolName, list[str]]:
        """The vector spaces that each pool of a task serves."""
        return {
            name: sorted(contract.adapter_space(space, adapter) for space in pool.spaces)
            for name, (pool, adapter) in self.serving.items()
        }

    def apply(self, groups: Iterable[TargetGroup]) -> None:
        """Serve with the workers of `groups`, and no others, from now on.

        A new worker is probed at once. A worker that is no longer named gets nothing further and finishes
        what it has. A pool that is named without workers stays, and may hold requests; what waits for a pool
        that is no longer named is refused.
        """
        groups = tuple(groups)
        named = dict.fromkeys(group.labels.task for group in groups)
        self._may_be_empty = frozenset(
            group.labels.task for group in groups if group.labels.min_replicas == "0"
        )
        removed, added = change(self.addresses, groups)
        for name, address in removed:
            log.info("replica %s of pool %s is removed", address, name)
        new: dict[contract.PoolName, list[Replica]] = defaultdict(list)
        for name, address in added:
            new[name].append(Replica(address, name, self._settings.lanes))
        self._removed = [pool for pool in self._removed if pool.in_flight]
        changed = [name for name, _ in (*removed, *added)]
        changed += [name for name in named if name not in self.pools]
        changed += [name for name in self.pools if name not in named]
        for name in dict.fromkeys(changed):
            if name not in self.pools:
                self.pools[name] = self._empty_pool(name)
            pool = self.pools[name]
            if pool.up:
                # Where all are replaced at once, waiting items wait until the new ones are probed.
                for replica in new[name]:
                    replica.expect()
            gone = [replica for replica in pool.replicas if (name, replica.address) in removed]
            for replica in gone:
                self._unwatch(replica)
            if name not in named:
                self._removed.append(self.pools.pop(name))
                pool.remove()
                continue
            pool.set_replicas([replica for replica in (*pool.replicas, *new[name]) if replica not in gone])
            for replica in new[name]:
                self._watch(pool, replica)
        # In the order of the document: the first pool's model is the default.
        self.pools = {name: self.pools[name] for name in named}
        self._assign()
        versions = {address: group.labels.version for group in groups for address in group.targets}
        for replica in self._replicas():
            replica.version = versions[replica.address]

    def not_ready(self) -> dict[contract.PoolName, str]:
        """The pools of tasks without a ready replica, and why; those that may be empty are left out."""
        return {
            name: "; ".join(f"{replica.address}: {replica.reason}" for replica in pool.replicas)
            or "no replica"
            for name, (pool, _) in self.serving.items()
            if not pool.ready and not (pool.holds and not pool.replicas and pool.name in self._may_be_empty)
        }

    def check_any_room(self, deadline: float, key: str = "") -> None:
        """Raise `QueueFull` when no pool has room for any request of `key` with `deadline`.

        Under overload most requests are refused here, before they are read, which costs a part of refusing
        them later.
        """
        full: QueueFull | None = None
        for pool in self._in_use:
            try:
                pool.check_any_room(deadline, key)
            except QueueFull as error:
                full = error
            else:
                return
        if full is not None:
            self._count_unread()
            raise full

    def submit(
        self,
        items: Sequence[Item],
        deadline: float,
        finished: Callable[[], None],
        *,
        request_id: str = "",
        span: "Span | None" = None,
        required: RequiredSpaces | None = None,
        key: str = "",
    ) -> Job:
        """Admit all of `items` to their pools, or none; `finished` is called when the job is closed.

        Items of a request that is too large to be interactive become bulk. `key` is the name of the API key.
        `required` are the vector spaces that the client accepts. Raises `Unavailable` when a pool has no
        ready replica and holds nothing, `QueueFull` when one has no room, `SpaceMismatch` when one serves
        another vector space, `CrashesWorker` for an item that workers died with.
        """
        parts: dict[Pool, list[Item]] = defaultdict(list)
        for item in items:
            pool, adapter = self._serving(item.pool)
            if adapter is not None:
                item.wire = replace(item.wire, adapter=adapter)
            parts[pool].append(item)
        self._requests += 1
        costs = {pool: cost_of(part) for pool, part in parts.items()}
        bound_priority(items, sum(costs.values()))
        for pool, cost in costs.items():
            pool.requested(cost)

        def close(job: Job) -> None:
            if job.error is not None:
                for pool, part in parts.items():
                    pool.forget(part)
            finished()

        job = Job(items, self.clock(), deadline, close, request_id, span, required, key)
        try:
            for pool, part in parts.items():
                pool.check_room(part, deadline)
        except RouterError:
            job.release()
            raise
        for pool, part in parts.items():
            pool.admit(part)
        return job

    def _assign(self) -> None:
        """Find what serves each pool of a task; vectors of another engine are in another vector space."""
        before, self.serving = self.serving, serving(self.pools, self.serving)
        self._in_use = tuple({pool for pool, _ in self.serving.values()})
        for name in before.keys() & self.serving.keys():
            old, new = before[name].pool.name, self.serving[name].pool.name
            if old != new:
                log.warning("workers of %s serve the pool %s now, no longer those of %s", new, name, old)

    def _replicas(self) -> Iterator[Replica]:
        return (replica for pool in self.pools.values() for replica in pool.replicas)

    def _serving(self, name: contract.PoolName) -> Serving:
        try:
            return self.serving[name]
        except KeyError:
            raise Unavailable(f"no worker serves the pool {name}", retry_after=RETRY_AFTER) from None

    def _count_unread(self) -> None:
        """Count an unread request with the mean tokens of all so far.

        Autoscaling goes by the tokens asked for, and under overload most requests are refused unread.
        """
        if self._requests:
            for pool in self.pools.values():
                pool.requested(pool.requested_tokens / self._requests)
            self._requests += 1

    async def _first_probes(self) -> None:
        if self._discovery is not None:
            await self._discovery.looked.wait()
        for watched in list(self._watched.values()):
            await watched.prober.probed.wait()

    def _watch(self, pool: Pool, replica: Replica) -> None:
        prober = Prober(replica, self._client, self._judge, self._settings.probe_seconds)

        def changed() -> None:
            prober.wake()
            self._assign()
            pool.replicas_changed()

        replica.changed = changed
        task = asyncio.get_running_loop().create_task(prober.run())
        self._watched[replica] = _Watched(prober, task)

    def _unwatch(self, replica: Replica) -> None:
        self._watched.pop(replica).task.cancel()
        replica.changed = lambda: None
        replica.remove()

    def _empty_pool(self, name: contract.PoolName) -> Pool:
        settings = self._settings
        return Pool(
            name,
            [],
            PoolQueue(settings.queue_tokens, settings.queue_items),
            partial(call.encode, self._client),
            settings.batch_tokens,
            settings.batch_items,
            self.clock,
            PoolObserver(self.metrics.pool(name), self.tracing, self.clock),
            settings.hold_seconds,
        )

    def _judge(self, replica: Replica, info: contract.Info) -> str | None:
        others = [
            other
            for other in self._replicas()
            # Vectors of different models cannot be compared, and rerankers have none.
            if BY_POOL[other.pool] is BY_POOL[replica.pool]
        ]
        return why_refused(replica, info, others)
