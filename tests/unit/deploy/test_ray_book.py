"""The book of workers and routers: leases, and the load."""

import pytest

from triptych.deploy.ray.book import LEARNING_SECONDS, LEASE_SECONDS, Book, Member, RouterReport
from triptych.deploy.ray.pressure import AVERAGED_SECONDS, SMALLEST_FLOW, Pressure
from triptych.workers.shared.contract import PoolName

NOW = 100.0


def member(id: str, pool: PoolName = "retrieval") -> Member:
    return Member(id, pool, f"10.0.0.1:{8100 + ord(id[0])}", "node")


def old_book() -> Book:
    return Book(NOW - LEARNING_SECONDS)


def test_document_lists_workers_by_pool() -> None:
    book = old_book()
    for one in (member("b"), member("a"), member("c", "code")):
        book.beat(one, NOW)
    assert book.document(NOW) == [
        {"targets": [member("c").address], "labels": {"task": "code"}},
        {"targets": [member("a").address, member("b").address], "labels": {"task": "retrieval"}},
    ]


def test_new_book_waits_for_a_lease() -> None:
    book = Book(NOW)
    book.beat(member("a"), NOW)
    assert book.document(NOW + LEARNING_SECONDS - 0.01) is None
    assert book.document(NOW + LEARNING_SECONDS) != []


def test_leases_expire_or_are_given_up() -> None:
    book = old_book()
    book.beat(member("a"), NOW)
    book.report(RouterReport("r", "url"), NOW)
    assert book.members(NOW + LEASE_SECONDS) == [member("a")]
    assert book.routers(NOW + LEASE_SECONDS) != []
    assert book.members(NOW + LEASE_SECONDS + 0.1) == []
    assert book.routers(NOW + LEASE_SECONDS + 0.1) == []
    book.beat(member("a"), NOW)
    book.report(RouterReport("r", "url"), NOW)
    book.leave("a", NOW)
    book.leave("r", NOW)
    assert book.overview(NOW) == ([], [], {})


def reporting(id: str, arrived: float, *, waiting: float = 0) -> RouterReport:
    return RouterReport(id, "url", pressures={"code": Pressure(waiting, 20)}, arrived={"code": arrived})


def test_pressure_sums_all_routers() -> None:
    book = old_book()
    assert book.pressure("code", NOW) is None
    book.report(reporting("r", 0, waiting=10), NOW)
    book.report(reporting("s", 0, waiting=5), NOW)
    assert book.pressure("code", NOW) == Pressure(15, 40)
    assert book.pressure("retrieval", NOW) == Pressure()
    assert Book(NOW).pressure("code", NOW) is None


def test_flow_counts_new_tokens_only() -> None:
    book = old_book()
    # Tokens before the first report do not count.
    book.report(reporting("r", 1_000_000), NOW)
    for second in range(1, 61):
        book.report(reporting("r", 1_000_000 + 100 * second), NOW + second)
        book.report(reporting("s", 50 * second), NOW + second)
    pressure = book.pressure("code", NOW + 60)
    assert pressure is not None
    assert pressure.tokens_per_second == pytest.approx(150, rel=0.15)
    later = NOW + 60 + 20 * AVERAGED_SECONDS
    book.report(reporting("r", 1_006_000), later)
    assert book.pressure("code", later).tokens_per_second < SMALLEST_FLOW  # type: ignore[union-attr]


def test_router_restart_keeps_the_flow() -> None:
    book = old_book()
    book.report(reporting("r", 1000), NOW)
    book.report(reporting("r", 1100), NOW + 1)
    before = book.pressure("code", NOW + 1)
    book.report(reporting("r", 0), NOW + 1)
    assert book.pressure("code", NOW + 1) == before


def test_served_by_all_and_known_by_none() -> None:
    book = old_book()
    # Without routers both hold.
    assert book.served_by_all("a", NOW)
    assert book.known_by_none("a", NOW)
    both = frozenset({"a"})
    book.report(RouterReport("r", "url", known=both, serving=both), NOW)
    book.report(RouterReport("s", "url", known=both), NOW)
    assert not book.served_by_all("a", NOW)
    assert not book.known_by_none("a", NOW)
    book.report(RouterReport("s", "url", known=both, serving=both), NOW)
    assert book.served_by_all("a", NOW)
    book.report(RouterReport("r", "url"), NOW)
    assert not book.known_by_none("a", NOW)
    # A router that left does not count.
    book.leave("s", NOW)
    assert book.known_by_none("a", NOW)


def test_demand_has_arrivals_and_backlog() -> None:
    assert Pressure(300, 20, 50).demand(backlog_seconds=30) == 60
    assert Pressure(tokens_per_second=SMALLEST_FLOW / 2).demand(30) == 0
