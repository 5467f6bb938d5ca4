"""Workers that are added and removed while the router serves, by SRV records, and name servers that fail."""

import json
from collections.abc import AsyncIterator

import dns.rcode
import pytest

from tests.fakes.dns import NameServer, name_server
from tests.fault.documents import Document
from triptych.router.pool.discovery import Discovery, Source
from triptych.router.pool.srv_records import SrvRecords
from triptych.router.pool.targets import TargetGroup

NAME = "_http._tcp.retrieval.triptych.svc.cluster.local"


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as running:
        yield running


class Found:
    """Discovery of `document`, which names `NAME`, through `server`, and the workers that it found last."""

    def __init__(
        self, document: Document, server: NameServer, targets: tuple[str, ...] = (), **labels: str
    ) -> None:
        group = {"targets": targets, "labels": {"task": "retrieval", "srv": NAME, **labels}}
        document.write(json.dumps([group]))
        self.applied: list[tuple[TargetGroup, ...]] = []
        records = SrvRecords([f"127.0.0.1:{server.port}"])
        self._discovery = Discovery(Source(str(document.path), None, 1), 1, self.applied.append, records)

    async def look(self) -> str | None:
        await self._discovery.look()
        return self._discovery.trouble

    @property
    def targets(self) -> tuple[str, ...]:
        [group] = self.applied[-1]
        return group.targets


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
async def test_workers_stay_while_dns_fails(
    document: Document, server: NameServer, rcode: dns.rcode.Rcode
) -> None:
    found = Found(document, server)
    server.records[NAME] = ["a.example:1", "b.example:1"]
    assert await found.look() is None
    server.rcode = rcode
    assert NAME in (await found.look() or "")
    assert found.targets == ("a.example:1", "b.example:1")
    server.rcode = None
    server.records[NAME] = ["a.example:1"]
    assert await found.look() is None
    assert found.targets == ("a.example:1",)


@pytest.mark.parametrize("records", [None, [], [":0"]])
async def test_a_pool_that_may_be_empty_loses_its_workers(
    document: Document, server: NameServer, records: list[str] | None
) -> None:
    found = Found(document, server, min_replicas="0")
    server.records[NAME] = ["a.example:1"]
    assert await found.look() is None
    server.records.clear()
    if records is not None:
        server.records[NAME] = records
    assert await found.look() is None
    assert found.targets == ()


async def test_workers_stay_while_the_document_is_broken_and_dns_goes_on(
    document: Document, server: NameServer
) -> None:
    found = Found(document, server)
    server.records[NAME] = ["a.example:1"]
    assert await found.look() is None
    document.write("[")
    server.records[NAME] = ["b.example:1"]
    assert await found.look() is not None
    assert found.targets == ("b.example:1",)


async def test_listed_workers_count_once(document: Document, server: NameServer) -> None:
    found = Found(document, server, ("a.example:1",))
    server.records[NAME] = ["a.example:1", "b.example:1"]
    assert await found.look() is None
    assert found.targets == ("a.example:1", "b.example:1")
