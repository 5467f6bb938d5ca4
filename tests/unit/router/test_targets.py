"""The discovery document: valid forms, and a fleet that serves with its workers."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.router import eventually
from tests.unit.router.apps import Workers
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.targets import (
    DocumentError,
    Labels,
    TargetGroup,
    document_of,
    read_document,
)
from triptych.router.settings import RouterSettings
from triptych.workers.shared.contract import PoolName

POOLS: tuple[PoolName, ...] = ("retrieval", "text-matching", "code")

# An address has one pool, as in every valid document.
addresses = st.sampled_from([f"a:{port}" for port in range(1, 9)])
fleets = st.dictionaries(addresses, st.sampled_from(POOLS))


def groups_of(fleet: dict[str, PoolName]) -> list[TargetGroup]:
    return [TargetGroup(targets=(address,), labels=Labels(task=pool)) for address, pool in fleet.items()]


@given(fleets, fleets)
def test_fleet_serves_with_the_named_workers_only(
    before: dict[str, PoolName], now: dict[str, PoolName]
) -> None:
    async def apply_both() -> None:
        settings = RouterSettings(discovery="no such file")
        async with Fleet(settings, lambda *_: Workers()) as fleet:
            seen = []
            for named in (before, now):
                fleet.apply(groups_of(named))
                assert list(fleet.pools) == list(dict.fromkeys(named.values()))
                replicas = {one.address: one for pool in fleet.pools.values() for one in pool.replicas}
                assert {address: one.pool for address, one in replicas.items()} == named
                seen.append(replicas)
            # Those of removed replicas have a turn to end.
            await asyncio.sleep(0)
            probers = [task for task in asyncio.all_tasks() if "Prober.run" in repr(task)]
            assert len(probers) == len(now)
        stay = [address for address, pool in now.items() if before.get(address) == pool]
        assert all(seen[0][address] is seen[1][address] for address in stay)

    asyncio.run(apply_both())


async def test_replicas_that_replace_all_others_count_as_up() -> None:
    """So what waits is not refused before their first probe."""
    async with Fleet(RouterSettings(discovery="no such file"), lambda *_: Workers()) as fleet:
        fleet.apply(groups_of({"retrieval:1": "retrieval"}))
        pool = fleet.pools["retrieval"]
        await eventually(lambda: pool.replicas.up)
        fleet.apply(groups_of({"a:1": "retrieval"}))
        assert pool.replicas.up


@pytest.mark.parametrize(
    ("fewest", "hold_seconds", "ready"),
    [("0", 60, True), ("0", 0, False), ("1", 60, False), (None, 60, False)],
)
async def test_readiness_of_an_empty_pool(fewest: str | None, hold_seconds: float, ready: bool) -> None:
    labels = {"task": "code"} | ({} if fewest is None else {"min_replicas": fewest})
    [group] = read_document(json.dumps([{"targets": [], "labels": labels}]).encode())
    settings = RouterSettings(discovery="no such file", hold_seconds=hold_seconds)
    async with Fleet(settings, lambda *_: Workers()) as fleet:
        fleet.apply([group])
        assert fleet.not_ready() == ({} if ready else {"code": "no replica"})
        # A replica that is still starting changes nothing.
        fleet.apply([group.model_copy(update={"targets": ("a:1",)})])
        assert fleet.pools["code"].is_ready() is ready


def test_unknown_labels_are_ignored() -> None:
    data = b'[{"targets": ["[::1]:81", "w-1.example:8101"], "labels": {"task": "code", "__meta_rack": "3"}}]'
    [group] = read_document(data)
    assert group.targets == ("[::1]:81", "w-1.example:8101")
    assert group.labels.task == "code"


kinds = st.tuples(st.sampled_from(POOLS), st.sampled_from([None, "1", "2"]))


@given(st.dictionaries(addresses, kinds))
def test_document_round_trips(fleet: dict[str, tuple[PoolName, str | None]]) -> None:
    workers = [(pool, version, address) for address, (pool, version) in fleet.items()]
    document = document_of(workers)
    if fleet:
        groups = [(group.labels, group.targets) for group in read_document(json.dumps(document).encode())]
        named = [(labels.task, labels.version) for labels, _ in groups]
        assert named == list(dict.fromkeys(fleet.values()))
        listed = [(labels.task, labels.version, one) for labels, targets in groups for one in targets]
        assert sorted(listed, key=str) == sorted(workers, key=str)


GOOD = '{"targets": ["a:1"], "labels": {"task": "code"}}'
RECORDS = '{"targets": [], "labels": {"task": "code", "srv": "_http._tcp.code.example"}}'


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("[", "JSON"),
        ("\udcff", "JSON"),
        ("{}", "array"),
        ("[]", "at least one worker"),
        *(
            (f'[{{"targets": [], "labels": {{"task": "code", "min_replicas": {fewest}}}}}]', "min_replicas")
            for fewest in ("0", '""', '"-1"', '"1.5"', '"one"', '"0\\n"')
        ),
        (f'[{GOOD}, {{"targets": ["b:1"], "labels": {{"task": "music"}}}}]', "1 -> labels -> task"),
        (f'[{GOOD}, {{"targets": ["b:1"]}}]', "1 -> labels -> Field required"),
        (f"[{GOOD}, {GOOD}]", "listed twice: a:1"),
        (f"[{RECORDS}, {RECORDS}]", "listed twice: _http._tcp.code.example"),
        ('[{"targets": [], "labels": {"task": "code", "srv": "code:8101"}}]', "labels -> srv"),
        *(
            (f'[{GOOD}, {{"targets": ["{target}"], "labels": {{"task": "code"}}}}]', "1 -> targets -> 0")
            for target in ("b", ":1", "b:0", "b:65536", "http://b:1", "b:1/x", "u@b:1", "[::z]:1")
        ),
    ],
)
def test_invalid_document_is_refused(document: str, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(document.encode(errors="surrogateescape"))
    assert says in str(caught.value)
