"""How the conductor gathers processes, runs loads, and notices processes that are lost."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from triptych.loadtests import conductor as module
from triptych.loadtests.assignment import (
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Stopped,
)
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.dialects import Target
from triptych.loadtests.recording import Noted, Samples
from triptych.loadtests.results import Interval, Process, Segment
from triptych.loadtests.shapes import Shape

LOCAL = "127.0.0.1"
STEADY = Segment(name="steady", seconds=0.2, rate=(5, 5))


def plan(**fields: object) -> Plan:
    target = Target(addresses={"": "http://127.0.0.1:9"}, dialect="jina", model="m", timeout=5)
    usual = {
        "target": target,
        "scenario": '{"about": "x", "flows": [{"name": "query", "task": "retrieval.query"}]}',
        "seed": "seed",
        "arrivals": "constant",
        "in_flight": 10,
        "calibration": {},
        "golden": None,
    }
    return Plan(**usual | fields)  # type: ignore[arg-type]


class Member(threading.Thread):
    """A process that joins `port`, and then does what `play` says with each load."""

    def __init__(self, port: int, name: str, play: "Play") -> None:
        super().__init__(daemon=True)
        self.member_name, self.play = name, play
        self.plan: Plan | None = None
        self.connection = socket.create_connection((LOCAL, port), timeout=30)
        self.start()

    def run(self) -> None:
        with self.connection, self.connection.makefile("rb") as lines:
            self.send(Joined(self.member_name))
            self.plan = msgspec.json.decode(lines.readline(), type=Plan)
            self.send(Samples([], {}))
            for line in lines:
                self.play(self, msgspec.json.decode(line, type=Load))

    def send(self, message: msgspec.Struct) -> None:
        self.connection.sendall(msgspec.json.encode(message) + b"\n")


Play = Callable[[Member, Load], None]


def answer(member: Member, load: Load) -> None:
    """Three requests sent, none lost."""
    noted = Noted(0, "query", 0, Interval(sent=3))
    member.send(Samples([noted], {"HTTP 500": member.member_name}))
    process = Process(name=member.member_name, cpu=0.1, lag=0.0, late=0.0)
    member.send(Done(processes=[process], compared=4))


def fail(member: Member, load: Load) -> None:
    member.send(Broken("failed:\nTraceback: it broke"))


def lost(member: Member, load: Load) -> None:
    member.connection.shutdown(socket.SHUT_RDWR)


def silent(member: Member, load: Load) -> None:
    """Do nothing at all."""


@contextlib.contextmanager
def gathered(*plays: Play) -> Iterator[tuple[Conductor, list[Member]]]:
    conductor = Conductor(LOCAL, 0, len(plays), lambda: None)
    members = [Member(conductor.port, f"process {number}", play) for number, play in enumerate(plays)]
    try:
        conductor.gather(plan(), ["query"])
        yield conductor, members
    finally:
        conductor.close()


def test_records_of_all_processes_add_up() -> None:
    with gathered(answer, answer) as (conductor, members):
        numbers = {(one.plan.process, one.plan.processes) for one in members if one.plan}
        assert numbers == {(0, 2), (1, 2)}
        [measured] = conductor.run([STEADY], lambda *_: None)
        assert measured.intervals["query"][0].sent == 6
        assert [process.name for process in measured.processes] == ["process 0", "process 1"]
        assert conductor.compared == 8
        assert conductor.examples.keys() == {"HTTP 500"}


def test_ctrl_c_before_the_first_load_gives_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 600.0)
    with gathered(silent) as (conductor, _):
        conductor.stop()
        with pytest.raises(KeyboardInterrupt):
            conductor.run([STEADY], lambda *_: None)


def test_ctrl_c_keeps_what_a_search_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)

    def search() -> Shape:
        for seconds in (0.2, 600.0):
            yield msgspec.structs.replace(STEADY, seconds=seconds)
        raise AssertionError("this load was stopped")

    def second(member: Member, load: Load) -> None:
        answer(member, load)
        if load.segments[0].seconds == 600.0:
            conductor.stop()

    with gathered(second) as (conductor, _):
        measured, capacity = conductor.search(search(), lambda *_: None)
        assert measured[0].intervals["query"][0].sent == 3
        assert (capacity, conductor.stopped) == (None, True)
        with pytest.raises(Stopped):
            conductor.stop()


def test_broken_process_fails_the_run() -> None:
    with gathered(answer, fail) as (conductor, _), pytest.raises(HarnessFailed, match="it broke"):
        conductor.run([STEADY], lambda *_: None)


def test_silent_process_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.2)
    with gathered(silent) as (conductor, _), pytest.raises(HarnessFailed, match="process 0 sent nothing"):
        conductor.run([STEADY], lambda *_: None)


def test_lost_process_fails_the_run() -> None:
    with gathered(answer, lost) as (conductor, _), pytest.raises(HarnessFailed, match="process 1"):
        conductor.run([STEADY], lambda *_: None)


SAMPLED = '{"type": "Samples", "examples": {}, "noted": [%s]}'
NOTED = '{"segment": 0, "flow": "query", "number": 0, "interval": {}}'
DONE = '{"type": "Done", "processes": %s, "compared": 0}'


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (SAMPLED % NOTED.replace('"segment": 0', '"segment": 1'), "segment 1"),
        (SAMPLED % NOTED.replace('"segment": 0', '"segment": -1'), "segment"),
        (SAMPLED % NOTED.replace("query", "absent"), "flow 'absent'"),
        (SAMPLED % NOTED.replace('"number": 0', '"number": -9'), "number"),
        (SAMPLED % NOTED.replace("{}", '{"sent": -1}'), "sent"),
        (SAMPLED % NOTED.replace("{}", '{"sent": 1%s}' % ("0" * 400)), "sent"),
        (SAMPLED % NOTED.replace("{}", '{"failures": {"timeout": -1}}'), "failures"),
        (SAMPLED % NOTED.replace("{}", '{"clocks": {"total": {"99999": 1}}}'), "clocks"),
        (DONE % "[]", "processes"),
        (DONE % "null", "processes"),
        ('{"type": "Joined", "name": "again"}', "Joined"),
        ('{"type": "Samples", "more": ' + "[" * 100_000, "recursion"),
        ("Segmentation fault", "JSON"),
        ('{"type": "Broken", "why": "%s"}' % ("x" * 300), "truncated"),
    ],
)
def test_malformed_line_names_its_process_and_field(
    line: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_BYTES", 300 if "xxx" in line else 1 << 20)

    def malformed(member: Member, load: Load) -> None:
        member.connection.sendall(f"{line}\n".encode())

    with gathered(answer, malformed) as (conductor, _), pytest.raises(HarnessFailed) as failed:
        conductor.run([STEADY], lambda *_: None)
    assert str(failed.value).startswith("process 1 sent ")
    assert field in str(failed.value)


def test_surplus_process_finds_no_run() -> None:
    with gathered(silent) as (conductor, _), pytest.raises(ConnectionError):
        Member(conductor.port, "surplus", answer)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 5000, b""])
def test_strangers_do_not_join(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 600.0)
    conductor = Conductor(LOCAL, 0, 1, lambda: None)
    with socket.create_connection((LOCAL, conductor.port)) as stranger:
        stranger.sendall(sent)
        member = Member(conductor.port, "process 0", answer)
        conductor.gather(plan(), ["query"], wait_seconds=20.0)
    assert member.plan is not None
    conductor.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_all_addresses_are_also_those_of_ipv4() -> None:
    conductor = Conductor("[::]", 0, 1, lambda: None)
    member = Member(conductor.port, "process 0", answer)
    conductor.gather(plan(), ["query"])
    assert member.plan is not None
    conductor.close()


def test_process_that_leaves_before_the_start_is_replaced() -> None:
    leaving = False
    members: list[Member] = []

    def alive() -> None:
        nonlocal leaving
        leaving = leaving or bool(conductor._members)
        if leaving and not conductor._members and not members:
            members.extend(Member(conductor.port, f"process {number}", answer) for number in range(2))

    conductor = Conductor(LOCAL, 0, 2, alive)
    with socket.create_connection((LOCAL, conductor.port)) as gone:
        gone.sendall(msgspec.json.encode(Joined("gone")) + b"\n")
    conductor.gather(plan(), ["query"], wait_seconds=20.0)
    assert all(member.plan for member in members)
    conductor.close()


def test_missing_processes_are_counted() -> None:
    conductor = Conductor(LOCAL, 0, 2, lambda: None)
    with pytest.raises(HarnessFailed, match="0 of 2"):
        conductor.gather(plan(), ["query"], wait_seconds=0.0)
    conductor.close()


def test_port_in_use_is_named() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HarnessFailed, match=str(port)):
            Conductor(LOCAL, port, 1, lambda: None)
