"""Workers that are added and removed while the router serves, by SRV records, and name servers that fail."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import dns.rcode
import pytest

from tests.fakes.dns import NameServer, name_server
from triptych.router.pool.discovery import Discovery, Source
from triptych.router.pool.srv_records import SrvRecords
from triptych.router.pool.targets import TargetGroup

NAME = "_http._tcp.retrieval.triptych.svc.cluster.local"


def document(path: Path, **labels: str) -> str:
    path.write_text(json.dumps([{"targets": [], "labels": {"task": "retrieval", "srv": NAME, **labels}}]))
    return str(path)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as running:
        yield running


class Found:
    """Discovery of `document` through `server`, and the workers that it found last."""

    def __init__(self, location: str, server: NameServer) -> None:
        self.applied: list[tuple[TargetGroup, ...]] = []
        records = SrvRecords([server.address])
        self._discovery = Discovery(Source(location, None, 1), 1, self.applied.append, records)

    async def look(self) -> str | None:
        await self._discovery.look()
        return self._discovery.trouble

    @property
    def targets(self) -> tuple[str, ...]:
        [group] = self.applied[-1]
        return group.targets


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
async def test_workers_stay_while_dns_fails(
    tmp_path: Path, server: NameServer, rcode: dns.rcode.Rcode
) -> None:
    found = Found(document(tmp_path / "workers.json"), server)
    server.records[NAME] = ["retrieval-0.retrieval:8101", "retrieval-1.retrieval:8101"]
    assert await found.look() is None
    server.rcode = rcode
    trouble = await found.look()
    assert trouble is not None
    assert NAME in trouble
    assert found.targets == ("retrieval-0.retrieval:8101", "retrieval-1.retrieval:8101")
    server.rcode = None
    server.records[NAME] = ["retrieval-0.retrieval:8101"]
    assert await found.look() is None
    assert found.targets == ("retrieval-0.retrieval:8101",)


@pytest.mark.parametrize("records", [None, [], [":0"]])
async def test_a_pool_that_may_be_empty_loses_its_workers(
    tmp_path: Path, server: NameServer, records: list[str] | None
) -> None:
    found = Found(document(tmp_path / "workers.json", min_replicas="0"), server)
    server.records[NAME] = ["retrieval-0.retrieval:8101"]
    assert await found.look() is None
    server.records.clear()
    if records is not None:
        server.records[NAME] = records
    assert await found.look() is None
    assert found.targets == ()


async def test_workers_stay_while_the_document_is_broken_and_dns_goes_on(
    tmp_path: Path, server: NameServer
) -> None:
    path = tmp_path / "workers.json"
    found = Found(document(path), server)
    server.records[NAME] = ["a.example:1"]
    assert await found.look() is None
    path.write_text("[")
    server.records[NAME] = ["b.example:1"]
    assert await found.look() is not None
    assert found.targets == ("b.example:1",)


async def test_a_pool_of_many_workers(tmp_path: Path, server: NameServer) -> None:
    found = Found(document(tmp_path / "workers.json"), server)
    workers = [f"retrieval-{i}.retrieval.triptych.svc.cluster.local:8101" for i in range(500)]
    server.records[NAME] = workers
    assert await found.look() is None
    assert found.targets == tuple(sorted(workers))
    assert server.answered[-1] == "tcp"


async def test_listed_workers_count_once(tmp_path: Path, server: NameServer) -> None:
    path = tmp_path / "workers.json"
    group = {"targets": ["a.example:1"], "labels": {"task": "retrieval", "srv": NAME}}
    path.write_text(json.dumps([group]))
    found = Found(str(path), server)
    server.records[NAME] = ["a.example:1", "b.example:1"]
    assert await found.look() is None
    assert found.targets == ("a.example:1", "b.example:1")
