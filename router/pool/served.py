"""What the workers serve: families with the sizes that they report, and the pools of tasks (pure)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from triptych.router.pool.pool import Pool
from triptych.router.pool.replica import State
from triptych.workers.shared.contract import Info, PoolName
from triptych.workers.shared.families import BY_POOL, Family


class Served(NamedTuple):
    """A family, and the info of one of its ready workers. Until there is one, the published sizes count.

    All pools of a family serve the same model.
    """

    family: Family
    info: Info | None = None

    @property
    def dimensions(self) -> int:
        """The length of an uncut vector."""
        return self.info.dimensions if self.info else self.family.dimensions

    @property
    def multivector_dimensions(self) -> int:
        """The length of a token's vector; 0 without multi-vectors."""
        return (self.info and self.info.multivector_dimensions) or self.family.multivector or 0

    @property
    def max_tokens(self) -> int:
        """The longest input."""
        return self.info.max_tokens if self.info else self.family.positions


def served_by(pools: Iterable[Pool]) -> dict[Family, Served]:
    """The families of `pools`, in the order of their first pools."""
    found: dict[Family, Served] = {}
    for pool in pools:
        family = BY_POOL[pool.name]
        if family not in found or found[family].info is None:
            ready = (replica.info for replica in pool.replicas if replica.state is State.READY)
            found[family] = Served(family, next(ready, None))
    return found


class Serving(NamedTuple):
    """The pool of workers that serves a task's pool.

    Its items must name `adapter`; None if the workers' checkpoint has it merged.
    """

    pool: Pool
    adapter: str | None


def serving(pools: Mapping[PoolName, Pool], before: Mapping[PoolName, Serving]) -> dict[PoolName, Serving]:
    """What serves each pool that a task names: its own workers, otherwise those of the shared pool.

    The shared pool goes on with a task that it served `before`, until the task's own workers are up.
    """
    found: dict[PoolName, Serving] = {}
    for name, pool in pools.items():
        family = BY_POOL[name]
        if name != family.shared_pool:
            found.setdefault(name, Serving(pool, None))
            continue
        for one, adapter in zip(family.pools, family.adapters, strict=True):
            shared = Serving(pool, adapter)
            if one not in pools or (before.get(one) == shared and not pools[one].replicas.up):
                found[one] = shared
    return found
