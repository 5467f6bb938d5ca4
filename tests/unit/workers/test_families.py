from dataclasses import replace

import pytest
from pydantic import TypeAdapter, ValidationError

from triptych.workers.shared.contract import POOLS
from triptych.workers.shared.families import (
    BY_NAME,
    BY_POOL,
    FAMILIES,
    TASK_POOLS,
    V3,
    V4,
    Family,
    Pool,
)

PLAIN = "plain"
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def test_pools_of_v4_have_no_key() -> None:
    assert set(V4.pools) == set(V4.adapters) == set(POOLS)


@every_family
def test_names_and_pools_belong_to_one_family(family: Family) -> None:
    assert family.pools
    assert {BY_POOL[pool] for pool in family.pools} == {family}
    assert {BY_NAME[name] for name in family.names} == {family}
    assert [family.adapter(pool) for pool in family.pools] == list(family.adapters)


@every_family
def test_every_role_of_a_task_has_a_prefix(family: Family) -> None:
    routes = [*family.tasks.values(), *([family.default] if family.default else [])]
    assert {route.role for route in routes} == set(family.prefixes)
    assert not family.prefixes.get(PLAIN)


@every_family
def test_other_names_of_tasks_lead_to_tasks(family: Family) -> None:
    assert set(family.other_tasks.values()) <= set(family.tasks)
    assert not set(family.other_tasks) & set(family.tasks)


@every_family
def test_a_family_embeds_or_ranks(family: Family) -> None:
    assert (family.default is not None) == bool(family.tasks)
    assert family.cross_encoder != bool(family.tasks)
    assert all(size < family.dimensions for size in family.matryoshka)


def test_names_and_pools_are_unique() -> None:
    assert len(BY_POOL) == sum(len(family.worker_pools) for family in FAMILIES)
    assert len(BY_NAME) == 2 * len(FAMILIES)


def test_shared_pool_holds_all_adapters() -> None:
    assert V4.shared_pool == "shared"
    assert V4.adapters_of("shared") == V4.adapters
    assert V4.adapters_of("code") == ("code",)
    assert "shared" not in TASK_POOLS
    assert replace(V3, shared=True).shared_pool == "v3.shared"


def test_unknown_pools_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"no pool 'v3\.code'; the pools are .*'v3\.base'"):
        TypeAdapter(Pool).validate_python("v3.code")
