"""What the generator makes of what happens to its requests, and of being late with them."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.plan import Load
from loadtests.recording import Samples
from loadtests.results import UNSENT, Segment
from tests.unit.loadtests.apart import apart
from tests.unit.loadtests.test_conductor import plan_of


@apart
def test_a_server_that_is_silent_is_a_timeout_and_one_that_is_not_there_refuses() -> None:
    from locust.contrib.fasthttp import FastHttpSession
    from locust.env import Environment

    from loadtests.generator import Generator
    from loadtests.users import User, prepare

    plan = plan_of("open")
    plan.timeout = 0.2
    with socket.socket() as silent, socket.socket() as absent:
        for taken in (silent, absent):
            taken.bind(("127.0.0.1", 0))
        silent.listen()
        for where, kind in ((silent, "timeout"), (absent, "connection refused")):
            plan.target = {"": f"http://127.0.0.1:{where.getsockname()[1]}"}
            generator = Generator(plan, "process 1", 0, 1)
            prepare(generator)
            pool = {"client_pool": User.client_pool, "max_retries": 0}
            client = FastHttpSession(None, Environment().events.request, None, **pool)
            outcome = generator._ask(generator._traffic.any(), client, 0.0)
            assert outcome.kind == kind, outcome


@apart
def test_a_generator_that_is_behind_still_sends_and_keeps_to_what_may_be_in_flight() -> None:
    import gevent

    from loadtests.generator import Generator, _Outcome

    plan = plan_of("open")
    plan.in_flight = 5
    generator = Generator(plan, "process 1", 0, 1)
    made = generator._traffic.any
    open_, most, beats = 0, 0, 0
    taken: list[Samples] = []

    def slow() -> object:
        """Twice as long as the rate allows."""
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        return made()

    def ask(*_: object) -> _Outcome:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        gevent.sleep(0.1)
        open_ -= 1
        return _Outcome()

    def beat() -> None:
        nonlocal beats
        while True:
            gevent.sleep(0.05)
            beats += 1

    generator._traffic.any, generator._ask = slow, ask  # type: ignore[method-assign,assignment]
    generator.lend(object())  # type: ignore[arg-type]
    beating = gevent.spawn(beat)
    segment = Segment(name="steady", seconds=0.5, rate=(200, 200))
    load = Load(number=1, segments=[segment], interval=0.25, delay=0.05, process=0, processes=1)
    generator.run(load, taken.append)
    beating.kill()
    intervals = [noted.interval for samples in taken for noted in samples.noted]
    assert sum(interval.sent for interval in intervals) == 100
    # It takes a second or more, in which five at a time take a tenth of one each.
    answered = sum(sum(its.clocks["total"].values()) for its in intervals if its.clocks)
    assert answered + sum(its.failures.get(UNSENT, 0) for its in intervals) == 100
    assert answered >= 20
    assert most == 5
    assert beats >= 10


@apart
def test_loads_at_one_rate_differ_in_when_their_requests_are_due_and_runs_of_one_seed_do_not() -> None:
    from loadtests.generator import Generator, _Outcome

    def intervals(generator: Generator, number: int) -> list[tuple[int, int]]:
        segment = Segment(name="try", seconds=0.5, rate=(200, 200))
        load = Load(number=number, segments=[segment], interval=0.05, delay=0.0, process=0, processes=1)
        taken: list[Samples] = []
        generator.run(load, taken.append)
        sent: dict[int, int] = {}
        for noted in (noted for samples in taken for noted in samples.noted):
            sent[noted.number] = sent.get(noted.number, 0) + noted.interval.sent
        return sorted(sent.items())

    plan = plan_of("open")
    plan.arrivals = "poisson"
    found = []
    for _ in range(2):
        generator = Generator(plan, "process 1", 0, 1)
        generator._ask = lambda *_: _Outcome()  # type: ignore[method-assign,assignment]
        generator.lend(object())  # type: ignore[arg-type]
        found.append([intervals(generator, number) for number in (1, 2)])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@apart
def test_certificates_are_checked_unless_that_is_refused_also_by_the_load() -> None:
    import gevent.ssl
    from gevent.pywsgi import WSGIServer
    from locust.contrib.fasthttp import FastHttpSession
    from locust.env import Environment

    from loadtests.generator import Generator
    from loadtests.users import User, prepare

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
    plan = plan_of("open")
    plan.target = {"": f"https://127.0.0.1:{server.server_port}"}
    kinds = []
    for plan.verify in (True, False):
        generator = Generator(plan, "process 1", 0, 1)
        prepare(generator)
        pool = {"client_pool": User.client_pool, "max_retries": 0}
        client = FastHttpSession(None, Environment().events.request, None, **pool)
        outcome = generator._ask(generator._traffic.any(), client, 0.0)
        kinds.append((outcome.kind, "CERTIFICATE_VERIFY_FAILED" in outcome.detail))
    assert kinds == [("connection lost", True), ("wrong: unreadable", False)]
