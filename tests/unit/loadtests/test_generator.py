"""What the generator does when it is late, when it may not send, and when a server misbehaves."""

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.unit.loadtests.test_conductor import plan
from tests.unit.router.test_fetch_addresses import self_signed
from triptych.loadtests.assignment import Load
from triptych.loadtests.checks import Outcome
from triptych.loadtests.generator import Generator, session_for
from triptych.loadtests.recording import Recorder
from triptych.loadtests.results import UNSENT, Segment
from triptych.loadtests.scenario import Flow, Request


def load_of(*segments: Segment, number: int = 1, interval: float = 0.25) -> Load:
    return Load(number=number, segments=list(segments), interval=interval, delay=0.0)


class Clock:
    """Time that passes while the event loop waits, and when a test adds to `now`."""

    now = 1000.0


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, loop = Clock(), asyncio.get_running_loop()
    selector = loop._selector  # type: ignore[attr-defined]
    select = selector.select

    def wait(timeout: float | None) -> object:
        clock.now += timeout or 0.0
        return select(timeout and 0)

    for place, name in ((loop, "time"), (time, "monotonic")):
        monkeypatch.setattr(place, name, lambda: clock.now)
    monkeypatch.setattr(selector, "select", wait)
    return clock


class Sending(Generator):
    """Answers by itself each request after `seconds`. `made` is called for each, before it is due."""

    def __init__(
        self, made: Callable[[], object] = lambda: None, seconds: float = 0.0, **fields: object
    ) -> None:
        super().__init__(plan(**fields), "process 1", session=None)  # type: ignore[arg-type]
        self.open = self.most_open = 0
        self._seconds, make = seconds, self._traffic.any

        def any_() -> Request:
            made()
            return make()

        self._traffic.any = any_  # type: ignore[method-assign]

    async def exchange(self, request: Request) -> tuple[Outcome, float]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(self._seconds)
        self.open -= 1
        return Outcome(), time.monotonic()


async def outcome_at(address: str, verify: bool = True, patience: float = GUARD_SECONDS) -> Outcome:
    """What becomes of a request to `address`."""
    target = msgspec.structs.replace(plan().target, addresses={"": address}, verify=verify, timeout=patience)
    async with session_for(target) as session:
        request = Request(Flow(name="query", task="retrieval.query"), ["text"])
        outcome, _ = await Generator(plan(target=target), "process 1", session).exchange(request)
        return outcome


@pytest.mark.parametrize("kind", ["timeout", "connection refused"])
async def test_server_that_does_not_answer_has_a_kind(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == "timeout":
            taken.listen()
        patience = 0.2 if kind == "timeout" else GUARD_SECONDS
        outcome = await outcome_at(f"http://127.0.0.1:{taken.getsockname()[1]}", patience=patience)
    assert outcome.kind == kind, outcome


def answering(sent: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)

    return answer


# The second is not UTF-8.
@pytest.mark.parametrize(("place", "said"), [(b"/elsewhere", "/elsewhere"), (b"http://\xff/", "http://?/")])
async def test_redirect_is_a_failure_that_says_where_to(place: bytes, said: str) -> None:
    sent = b"HTTP/1.1 307 Moved\r\nLocation: %b\r\nContent-Length: 2\r\n\r\nno" % place
    async with await asyncio.start_server(answering(sent), "127.0.0.1", 0) as server:
        outcome = await outcome_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert outcome == Outcome("HTTP 307", f"redirects to {said}")


async def test_late_generator_still_sends_up_to_in_flight(clock: Clock) -> None:
    def made() -> None:
        """Twice as long as the rate allows."""
        clock.now += 0.01

    its = Sending(made, seconds=0.1, in_flight=5)
    await its.run(load_of(Segment(name="steady", seconds=0.5, rate=200)))
    intervals = [interval for *_, interval in its.take().noted]
    answered = sum(sum(one.clocks["total"].values()) for one in intervals if one.clocks)
    unsent = sum(one.failures.get(UNSENT, 0) for one in intervals)
    assert sum(one.sent for one in intervals) == answered + unsent == 100
    assert answered >= its.most_open == 5


async def test_lateness_is_measured_for_each_segment(clock: Clock) -> None:
    made = 0

    def stall_once() -> None:
        nonlocal made
        made += 1
        # The second of the second segment.
        clock.now += 0.3 * (made == 12)

    segments = [Segment(name=name, seconds=1.0, rate=10) for name in "abc"]
    done = await Sending(stall_once).run(load_of(*segments))
    # It is made when the one before is sent, a tenth of a second before it is due.
    assert [process.late for process in done.processes] == pytest.approx([1e-5, 0.2, 1e-5], rel=0.01)


async def test_failed_helper_fails_the_load(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def tick(*_: object) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(Recorder, "tick", tick)
    with pytest.raises(ExceptionGroup):
        await Sending().run(load_of(Segment(name="steady", seconds=1.0, rate=10)))


async def test_same_seed_gives_the_same_arrivals_and_each_load_others(clock: Clock) -> None:
    async def sent(its: Generator, number: int) -> list[tuple[int, int]]:
        segment = Segment(name="try", seconds=0.5, rate=200)
        await its.run(load_of(segment, number=number, interval=0.05))
        return sorted((number, one.sent) for _, number, _, one in its.take().noted if one.sent)

    first, second = (Sending(arrivals="poisson") for _ in range(2))
    found = [[await sent(its, number) for number in (1, 2)] for its in (first, second)]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


@pytest.fixture
def certified(tmp_path: Path) -> ssl.SSLContext:
    """A server's certificate that no authority has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl for the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path, "a.example"))
    return context


async def test_certificates_are_checked_unless_insecure(certified: ssl.SSLContext) -> None:
    reply = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    async with await asyncio.start_server(reply, "127.0.0.1", 0, ssl=certified) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        refused, accepted = await outcome_at(address), await outcome_at(address, verify=False)
    assert refused.kind == "connection lost"
    assert "CERTIFICATE_VERIFY_FAILED" in refused.detail
    assert accepted.kind == "wrong: unreadable"
