"""What the generator does when it is late, when it may not send, and when a server misbehaves."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.unit.loadtests.test_conductor import plan
from triptych.loadtests.assignment import Load
from triptych.loadtests.generator import Generator, session_for
from triptych.loadtests.outcomes import Outcome
from triptych.loadtests.request import Request
from triptych.loadtests.results import UNSENT, Segment


def load_of(segment: Segment, number: int = 1, interval: float = 0.25) -> Load:
    return Load(number=number, segments=[segment], interval=interval, delay=0.0)


async def outcome_at(address: str, verify: bool = True, patience: float = 30.0) -> Outcome:
    """What becomes of a request to `address`."""
    target = msgspec.structs.replace(plan().target, addresses={"": address}, verify=verify, timeout=patience)
    async with session_for(target) as session:
        request = Request(flow="query", task="retrieval.query", inputs=["text"])
        outcome, _ = await Generator(plan(target=target), "process 1", session).exchange(request)
        return outcome


@pytest.mark.parametrize("kind", ["timeout", "connection refused"])
async def test_server_that_does_not_answer_has_a_kind(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == "timeout":
            taken.listen()
        outcome = await outcome_at(f"http://127.0.0.1:{taken.getsockname()[1]}", patience=0.2)
    assert outcome.kind == kind, outcome


async def test_failure_with_any_bytes_of_the_server_can_be_reported() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n")

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        outcome = await outcome_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert outcome.kind == "connection lost"
    assert msgspec.json.encode(outcome.detail)


async def test_late_generator_still_sends_up_to_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    open_, most = 0, 0

    async def exchange(_: Request) -> tuple[Outcome, float]:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        await asyncio.sleep(0.1)
        open_ -= 1
        return Outcome(), time.monotonic()

    async with aiohttp.ClientSession() as session:
        its = Generator(plan(in_flight=5), "process 1", session)
        made = its._traffic.any

        def slow() -> Request:
            """Twice as long as the rate allows."""
            end = time.monotonic() + 0.01
            while time.monotonic() < end:
                pass
            return made()

        monkeypatch.setattr(its._traffic, "any", slow)
        monkeypatch.setattr(its, "exchange", exchange)
        done = await its.run(load_of(Segment(name="steady", seconds=0.5, rate=(200, 200))))
    intervals = [noted.interval for noted in its.take().noted]
    answered = sum(sum(one.clocks["total"].values()) for one in intervals if one.clocks)
    unsent = sum(one.failures.get(UNSENT, 0) for one in intervals)
    assert sum(one.sent for one in intervals) == answered + unsent == 100
    assert answered >= most == 5
    # The last ones are half a second late.
    assert done.processes[0].late > 0.3


async def test_same_seed_gives_the_same_arrivals_and_each_load_others() -> None:
    async def exchange(_: Request) -> tuple[Outcome, float]:
        return Outcome(), time.monotonic()

    async def sent(its: Generator, number: int) -> list[tuple[int, int]]:
        its.exchange = exchange  # type: ignore[method-assign]
        await its.run(load_of(Segment(name="try", seconds=0.5, rate=(200, 200)), number, 0.05))
        return sorted(
            (noted.number, noted.interval.sent) for noted in its.take().noted if noted.interval.sent
        )

    async with aiohttp.ClientSession() as session:
        first, second = (Generator(plan(arrivals="poisson"), "process 1", session) for _ in range(2))
        found = [[await sent(its, number) for number in (1, 2)] for its in (first, second)]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


@pytest.fixture
def certified(tmp_path: Path) -> ssl.SSLContext:
    """A server's certificate that no authority has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.example"
    argv = [*words.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_certificates_are_checked_unless_insecure(certified: ssl.SSLContext) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with await asyncio.start_server(reply, "127.0.0.1", 0, ssl=certified) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        refused, accepted = await outcome_at(address), await outcome_at(address, verify=False)
    assert refused.kind == "connection lost"
    assert "CERTIFICATE_VERIFY_FAILED" in refused.detail
    assert accepted.kind == "wrong: unreadable"
