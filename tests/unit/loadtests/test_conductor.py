"""How the conductor gathers processes, runs loads, and notices processes that are lost."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from triptych.loadtests import conductor as module
from triptych.loadtests.assignment import (
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Refused,
    Sampled,
    Target,
    ToProcess,
)
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.recording import Noted, Samples
from triptych.loadtests.results import Interval, Process, Segment

LOCAL = "127.0.0.1"
STEADY = Segment(name="steady", seconds=0.2, rate=(5, 5))


def plan(**fields: object) -> Plan:
    target = Target(
        addresses={"": "http://127.0.0.1:9"}, dialect="jina", model="m", key=None, verify=True, timeout=5
    )
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
        self.port, self.member_name, self.play = port, name, play
        self.plan: ToProcess | None = None
        self.start()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as self.socket:
            self.socket.linger, self.socket.rcvtimeo = 0, 10_000
            self.socket.connect(f"tcp://{LOCAL}:{self.port}")
            self.send(Joined(self.member_name))
            with contextlib.suppress(zmq.Again):
                self.plan = self.receive()
                self.send(Sampled(Samples([], {})))
                while isinstance(load := self.receive(), Load):
                    self.play(self, load)

    def send(self, message: msgspec.Struct) -> None:
        self.socket.send(msgspec.msgpack.encode(message))

    def receive(self) -> ToProcess:
        return msgspec.msgpack.decode(self.socket.recv(), type=ToProcess)


Play = Callable[[Member, Load], None]


def answer(member: Member, load: Load) -> None:
    """Three requests sent, none lost."""
    noted = Noted(0, "query", 0, Interval(sent=3))
    member.send(Sampled(Samples([noted], {"HTTP 500": member.member_name})))
    process = Process(name=member.member_name, cpu=0.1, lag=0.0, late=0.0)
    member.send(Done(processes=[process], machine_cpu=[0.25], compared=4))


def fail(member: Member, load: Load) -> None:
    member.send(Broken("Traceback: it broke"))


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
        numbers = {(one.plan.process, one.plan.processes) for one in members if isinstance(one.plan, Plan)}
        assert numbers == {(0, 2), (1, 2)}
        [measured] = conductor.run([STEADY], lambda *_: None)
        assert measured.intervals["query"][0].sent == 6
        assert [process.name for process in measured.processes] == ["process 0", "process 1"]
        assert (measured.machine_cpu, conductor.compared) == (0.25, 8)
        assert conductor.examples.keys() == {"HTTP 500"}


def test_broken_process_fails_the_run() -> None:
    with gathered(answer, fail) as (conductor, _), pytest.raises(HarnessFailed, match="it broke"):
        conductor.run([STEADY], lambda *_: None)


def test_silent_process_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.2)
    with gathered(silent) as (conductor, _), pytest.raises(HarnessFailed, match="process 0 sent nothing"):
        conductor.run([STEADY], lambda *_: None)


def test_surplus_process_is_refused() -> None:
    with gathered(silent) as (conductor, [first]):
        surplus = Member(conductor.port, "surplus", answer)

        def end(*_: object) -> None:
            if surplus.plan is not None:
                raise KeyboardInterrupt

        conductor.run([STEADY], end)
        assert isinstance(surplus.plan, Refused)
        assert isinstance(first.plan, Plan)


def test_strangers_do_not_join() -> None:
    conductor = Conductor(LOCAL, 0, 1, lambda: None)
    with socket.create_connection((LOCAL, conductor.port)) as stranger, zmq.Context() as context:
        stranger.sendall(b"\x00\x00\x00\x03abc")
        with context.socket(zmq.DEALER) as another:
            another.linger = 0
            another.connect(f"tcp://{LOCAL}:{conductor.port}")
            another.send(b"abc")
            member = Member(conductor.port, "process 0", answer)
            conductor.gather(plan(), ["query"])
    assert isinstance(member.plan, Plan)
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
