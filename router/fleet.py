"""All pools together: admits a request over those it needs, and says what is ready and what is served."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from router.errors import Unavailable
from router.health import Prober
from router.item import Gather, Item
from router.pool import RETRY_AFTER, Pool
from router.queue import PoolQueue
from router.replica import Replica, State
from router.settings import RouterSettings
from router.transport import make_client
from workers import contract

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
RERANK_POOL: contract.PoolName = "rerank"


@dataclass(frozen=True, slots=True)
class Gauges:
    """How much of a pool is in use at this moment."""

    waiting_items: int
    waiting_tokens: int
    batches_in_flight: int
    tokens_in_flight: int
    lanes_in_use: int


class Fleet:
    """The pools that the settings name. Used as an async context: probing lasts as long as it does."""

    def __init__(
        self,
        settings: RouterSettings,
        make_client: Callable[[float, float], httpx.AsyncClient] = make_client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pools: dict[contract.PoolName, Pool] = {}
        self._settings = settings
        self._make_client = make_client
        self.clock = clock
        self._probers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Fleet":
        settings = self._settings
        self._client = self._make_client(CONNECT_SECONDS, settings.worker_timeout_seconds)
        addresses: dict[contract.PoolName, list[str]] = defaultdict(list)
        for group in settings.workers:
            addresses[group.labels.task].extend(group.targets)
        for name, targets in addresses.items():
            pool = Pool(
                name,
                [Replica(address, name, settings.lanes, self._client) for address in targets],
                PoolQueue(settings.queue_tokens, settings.queue_items),
                settings.batch_tokens,
                settings.batch_items,
                self.clock,
            )
            self.pools[name] = pool
            for replica in pool.replicas:
                self._watch(pool, replica)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._probers:
            task.cancel()
        await asyncio.gather(*self._probers, return_exceptions=True)
        for pool in self.pools.values():
            await pool.close()
        await self._client.aclose()

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

    def not_ready(self) -> dict[contract.PoolName, str]:
        """The pools without a ready replica, and why."""
        return {
            name: "; ".join(f"{replica.address}: {replica.reason}" for replica in pool.replicas)
            for name, pool in self.pools.items()
            if not pool.ready
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

    def submit(self, items: Sequence[Item], deadline: float, finished: Callable[[], None]) -> Gather:
        """Let all of `items` wait for their pools, or none; `finished` is called when the gather is closed.

        Raises `Unavailable` when a pool has no ready replica, `QueueFull` when one has no room.
        """
        parts: dict[Pool, list[Item]] = defaultdict(list)
        for item in items:
            parts[self._pool(item.pool)].append(item)
        for pool, part in parts.items():
            if not pool.ready:
                raise pool.unavailable()
            pool.queue.check_room(part)

        def close(gather: Gather) -> None:
            if gather.error is not None:
                for pool, part in parts.items():
                    pool.forget(part)
            finished()

        gather = Gather(items, self.clock(), deadline, close)
        for pool, part in parts.items():
            pool.queue.admit(part)
        for pool in parts:
            pool.dispatch()
        return gather

    def _pool(self, name: contract.PoolName) -> Pool:
        try:
            return self.pools[name]
        except KeyError:
            raise Unavailable(f"no worker serves the pool {name} here", retry_after=RETRY_AFTER) from None

    def _watch(self, pool: Pool, replica: Replica) -> None:
        prober = Prober(replica, self._client, self._judge, self._settings.probe_seconds)

        def changed() -> None:
            prober.wake()
            pool.replicas_changed()

        replica.changed = changed
        self._probers.append(asyncio.get_running_loop().create_task(prober.run()))

    def _judge(self, replica: Replica, info: contract.Info) -> str | None:
        """Why `replica` must not serve: vectors of another task or size would be wrong without a sign."""
        if info.task != replica.pool:
            return f"it serves the task {info.task}, not {replica.pool}; start it with that task's checkpoint"
        for pool in self.pools.values():
            for other in pool.replicas:
                if other is replica or other.state is not State.READY or other.info is None:
                    continue
                if RERANK_POOL not in (replica.pool, pool.name) and info.dimensions != other.info.dimensions:
                    return f"it has {info.dimensions} dimensions, {other.address} has {other.info.dimensions}"
                if pool.name == replica.pool and info.digest != other.info.digest:
                    log.warning(
                        "replicas %s and %s of pool %s serve different checkpoints",
                        replica.address,
                        other.address,
                        pool.name,
                    )
        return None
