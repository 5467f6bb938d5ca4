"""All pools together: which workers they have, and the admission of requests over them."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import aiohttp
from msgspec.structs import replace
from pydantic import SecretStr

from triptych.router.background import running
from triptych.router.errors import QueueFull, RouterError, Unavailable
from triptych.router.items import Item, Job, bound_priority, cost_of
from triptych.router.observe.metrics import Metrics
from triptych.router.observe.tracing import Tracing
from triptych.router.pool import call
from triptych.router.pool.discovery import Discovery, Source
from triptych.router.pool.dispatcher import Dispatcher
from triptych.router.pool.health import RETRY_SECONDS, Prober
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.pool import Pool
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica
from triptych.router.pool.served import Served, Serving, served_by, serving
from triptych.router.pool.targets import TargetGroup
from triptych.router.pool.transport import worker_session
from triptych.router.settings import RouterSettings
from triptych.workers.shared import contract
from triptych.workers.shared.families import Family

log = logging.getLogger(__name__)

FIRST_PROBES_SECONDS = 2.0


class Fleet:
    """The pools of the workers that are named. An async context: workers are probed while it lasts.

    `pools` are the workers' pools by name. `serving` says which of them serves each task's pool; `in_use` are
    the pools that serve one.

    Entering it waits for the first probe of every worker, up to two seconds. Otherwise, of several router
    processes, one that has just started would refuse requests that the others could serve.
    """

    def __init__(
        self,
        settings: RouterSettings,
        make_client: Callable[[float, SecretStr | None], aiohttp.ClientSession] = worker_session,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
    ) -> None:
        self.pools: dict[contract.PoolName, Pool] = {}
        self.serving: dict[contract.PoolName, Serving] = {}
        self.in_use: tuple[Pool, ...] = ()
        self.clock = time.monotonic
        self.metrics = Metrics()
        self.tracing = Tracing.configured(settings.trust_traceparent)
        self._settings = settings
        self._make_client = make_client
        self._retry_seconds = retry_seconds
        self._watched: dict[Replica, tuple[Prober, asyncio.Task[None]]] = {}
        self._removed: list[Pool] = []
        self._requests = 0
        self._discovery: Discovery | None = None
        self._discovering = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Fleet":
        settings = self._settings
        self._client = self._make_client(settings.worker_timeout_seconds, settings.worker_token)
        if settings.workers:
            # A pool that the settings name without a worker can never have one.
            self.apply(group for group in settings.workers if group.targets)
        if settings.discovery is not None:
            source = Source(settings.discovery, settings.discovery_token, settings.discovery_seconds)
            self._discovery = Discovery(source, settings.discovery_seconds, self.apply)
            await self._discovering.enter_async_context(running(self._discovery.run()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PROBES_SECONDS):
                if self._discovery is not None:
                    await self._discovery.looked.wait()
                for prober, _ in list(self._watched.values()):
                    await prober.probed.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._discovering.aclose()
        tasks = [task for _, task in self._watched.values()]
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
    def served(self) -> dict[Family, Served]:
        """The families of the pools; the family of the first pool comes first."""
        return served_by(self.pools.values())

    @property
    def spaces(self) -> dict[contract.PoolName, list[str]]:
        """The vector spaces that each pool of a task serves."""
        return {
            name: sorted(contract.adapter_space(space, adapter) for space in pool.replicas.spaces)
            for name, (pool, adapter) in self.serving.items()
        }

    def apply(self, groups: Iterable[TargetGroup]) -> None:
        """Serve with the workers of `groups`, and no others, from now on.

        A new worker is probed at once. A worker that is no longer named gets nothing further and finishes
        what it has. A pool that is named without workers stays, and may hold requests; what waits for a pool
        that is no longer named is refused.
        """
        groups = tuple(groups)
        wanted: dict[contract.PoolName, dict[str, str | None]] = defaultdict(dict)
        for group in groups:
            wanted[group.labels.task].update(dict.fromkeys(group.targets, group.labels.version))
        may_be_empty = {group.labels.task for group in groups if group.labels.min_replicas == "0"}
        self._removed = [pool for pool in self._removed if pool.in_flight]
        before = self.pools
        # In the order of the document: the first pool's model is the default.
        self.pools = {name: before.get(name) or self._empty_pool(name) for name in wanted}
        for name, pool in before.items():
            if name not in wanted:
                for replica in pool.replicas:
                    self._unwatch(replica)
                self._removed.append(pool)
                pool.dispatcher.remove(self.clock())
        for name, versions in wanted.items():
            self.pools[name].may_be_empty = name in may_be_empty
            self._set_replicas(self.pools[name], versions)
        self._assign()

    def not_ready(self) -> dict[contract.PoolName, str]:
        """The pools of tasks that are not ready, and why."""
        return {
            name: "; ".join(f"{one.address}: {one.reason}" for one in pool.replicas) or "no replica"
            for name, (pool, _) in self.serving.items()
            if not pool.is_ready()
        }

    def check_any_room(self, deadline: float, key: str = "") -> None:
        """Raise `QueueFull` when no pool has room for any request of `key` with `deadline`.

        Under overload most requests are refused here, before they are read, which costs a part of refusing
        them later.
        """
        full: QueueFull | None = None
        now = self.clock()
        for pool in self.in_use:
            try:
                pool.dispatcher.check_any_room(now, deadline, key)
            except QueueFull as error:
                full = error
            else:
                return
        if full is not None:
            self._count_unread()
            raise full

    def submit(self, job: Job) -> None:
        """Admit all items of `job` to their pools, or none.

        Raises `Unavailable` when a pool has no ready replica and holds nothing, `QueueFull` when one has no
        room, `SpaceMismatch` when one serves another vector space, `CrashesWorker` for an item that workers
        died with. Then the job is released.
        """
        parts: dict[Pool, list[Item]] = defaultdict(list)
        finished = job.finished

        def close(job: Job) -> None:
            if job.error is not None:
                for pool, part in parts.items():
                    pool.forget(part)
            finished(job)

        job.finished = close
        try:
            for item in job.items:
                if item.pool not in self.serving:
                    raise Unavailable(f"no worker serves the pool {item.pool}")
                pool, adapter = self.serving[item.pool]
                if adapter is not None:
                    item.wire = replace(item.wire, adapter=adapter)
                parts[pool].append(item)
            self._requests += 1
            costs = {pool: cost_of(part) for pool, part in parts.items()}
            bound_priority(job.items, sum(costs.values()))
            for pool, cost in costs.items():
                pool.requested(cost)
            for pool, part in parts.items():
                pool.dispatcher.check_room(part, job.admitted_at, job.deadline)
        except RouterError:
            job.release()
            raise
        for pool, part in parts.items():
            pool.admit(part)

    def _assign(self) -> None:
        """Find what serves each pool of a task; vectors of another engine are in another vector space."""
        before, self.serving = self.serving, serving(self.pools, self.serving)
        self.in_use = tuple({pool for pool, _ in self.serving.values()})
        for name in before.keys() & self.serving.keys():
            old, new = before[name].pool.name, self.serving[name].pool.name
            if old != new:
                log.warning("workers of %s serve the pool %s now, no longer those of %s", new, name, old)

    def _replicas(self) -> Iterator[Replica]:
        return (replica for pool in self.pools.values() for replica in pool.replicas)

    def _count_unread(self) -> None:
        """Count an unread request with the mean tokens of all so far.

        Autoscaling goes by the tokens asked for, and under overload most requests are refused unread.
        """
        if self._requests:
            for pool in self.pools.values():
                pool.requested(pool.requested_tokens / self._requests)
            self._requests += 1

    def _set_replicas(self, pool: Pool, versions: Mapping[str, str | None]) -> None:
        """Have a replica at each address of `versions` in `pool`, and no others."""
        stay = {replica.address: replica for replica in pool.replicas if replica.address in versions}
        gone = [replica for replica in pool.replicas if replica.address not in versions]
        new = [
            Replica(address, pool.name, self._settings.lanes) for address in versions if address not in stay
        ]
        if pool.replicas.up:
            # Where all are replaced at once, waiting items wait until the new ones are probed.
            for replica in new:
                replica.expect()
        for replica in gone:
            self._unwatch(replica)
        if gone or new:
            pool.set_replicas([*stay.values(), *new])
        for replica in new:
            self._watch(pool, replica)
        for replica in pool.replicas:
            replica.version = versions[replica.address]

    def _watch(self, pool: Pool, replica: Replica) -> None:
        seconds = self._settings.probe_seconds
        prober = Prober(replica, self._client, self._replicas, seconds, self._retry_seconds)

        def changed() -> None:
            prober.wake()
            self._assign()
            pool.replicas_changed()

        replica.changed = changed
        self._watched[replica] = prober, asyncio.create_task(prober.run())

    def _unwatch(self, replica: Replica) -> None:
        log.info("%s is removed", replica)
        _, task = self._watched.pop(replica)
        task.cancel()
        replica.remove()

    def _empty_pool(self, name: contract.PoolName) -> Pool:
        settings = self._settings
        dispatcher = Dispatcher(
            name,
            [],
            PoolQueue(settings.queue_tokens, settings.queue_items),
            settings.batch_tokens,
            settings.batch_items,
            PoolObserver(self.metrics, name, self.tracing, self.clock),
            self.clock(),
            settings.hold_seconds,
        )
        return Pool(dispatcher, partial(call.encode, self._client), self.clock)
