"""What the generator does when it is late, when it may not send, and when a server misbehaves."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.unit.loadtests.apart import apart
from tests.unit.loadtests.test_conductor import plan
from triptych.loadtests.assignment import Load
from triptych.loadtests.results import UNSENT, Segment


def load_of(segment: Segment, number: int = 1, interval: float = 0.25) -> Load:
    return Load(number=number, segments=[segment], interval=interval, delay=0.0)


@apart
def test_outcomes_of_servers_that_do_not_answer() -> None:
    from triptych.loadtests.exchange import exchange
    from triptych.loadtests.generator import Generator

    with socket.socket() as silent, socket.socket() as absent:
        for taken in (silent, absent):
            taken.bind(("127.0.0.1", 0))
        silent.listen()
        for where, kind in ((silent, "timeout"), (absent, "connection refused")):
            address = f"http://127.0.0.1:{where.getsockname()[1]}"
            target = msgspec.structs.replace(plan().target, addresses={"": address}, timeout=0.2)
            its = Generator(plan(target=target), "process 1")
            request = its._traffic.any()
            outcome = exchange(its._session, its._dialect, its._checker, request, "query")
            assert outcome.kind == kind, outcome


@apart
def test_late_generator_still_sends_up_to_in_flight() -> None:
    import gevent

    from triptych.loadtests import generator as module
    from triptych.loadtests.exchange import Outcome

    its = module.Generator(plan(in_flight=5), "process 1")
    made = its._traffic.any
    open_, most = 0, 0

    def slow() -> object:
        """Twice as long as the rate allows."""
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        return made()

    def exchange(*_: object) -> Outcome:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        gevent.sleep(0.1)
        open_ -= 1
        return Outcome(ended=time.monotonic())

    its._traffic.any, module.exchange = slow, exchange  # type: ignore[method-assign,assignment]
    done = its.run(load_of(Segment(name="steady", seconds=0.5, rate=(200, 200))))
    intervals = [noted.interval for noted in its.take().noted]
    answered = sum(sum(one.clocks["total"].values()) for one in intervals if one.clocks)
    unsent = sum(one.failures.get(UNSENT, 0) for one in intervals)
    assert sum(one.sent for one in intervals) == 100
    assert answered + unsent == 100
    assert answered >= 5
    assert most == 5
    # The last ones are half a second late.
    assert done.processes[0].late > 0.3


@apart
def test_same_seed_gives_the_same_arrivals_and_each_load_others() -> None:
    from triptych.loadtests import generator as module
    from triptych.loadtests.exchange import Outcome

    module.exchange = lambda *_: Outcome(ended=time.monotonic())  # type: ignore[assignment]

    def sent(its: module.Generator, number: int) -> list[tuple[int, int]]:
        its.run(load_of(Segment(name="try", seconds=0.5, rate=(200, 200)), number, 0.05))
        found: dict[int, int] = {}
        for noted in its.take().noted:
            found[noted.number] = found.get(noted.number, 0) + noted.interval.sent
        return sorted(found.items())

    found = []
    for _ in range(2):
        its = module.Generator(plan(arrivals="poisson"), "process 1")
        found.append([sent(its, number) for number in (1, 2)])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@apart
def test_certificates_are_checked_unless_insecure() -> None:
    import gevent.ssl
    from gevent.pywsgi import WSGIServer

    from triptych.loadtests.exchange import exchange
    from triptych.loadtests.generator import Generator

    def reply(_: object, start: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "a.pem", Path(folder) / "a.key"
        words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.example"
        argv = [*words.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(argv, check=True, capture_output=True)
        context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    server = WSGIServer(("127.0.0.1", 0), reply, log=None, error_log=None, ssl_context=context)
    server.start()
    kinds = []
    for verify in (True, False):
        addresses = {"": f"https://127.0.0.1:{server.server_port}"}
        target = msgspec.structs.replace(plan().target, addresses=addresses, verify=verify)
        its = Generator(plan(target=target), "process 1")
        outcome = exchange(its._session, its._dialect, its._checker, its._traffic.any(), "query")
        kinds.append((outcome.kind, "CERTIFICATE_VERIFY_FAILED" in outcome.detail))
    assert kinds == [("connection lost", True), ("wrong: unreadable", False)]
