"""How the conductor gathers processes, runs loads, and notices processes that are lost."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from triptych.loadtests import conductor as module
from triptych.loadtests.assignment import (
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Prepared,
    Sampled,
    Target,
    ToProcess,
)
from triptych.loadtests.channel import Channel
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.recording import Noted, Samples
from triptych.loadtests.results import Capacity, Interval, Measured, Process, Segment
from triptych.loadtests.shapes import Shape

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
        "loop": "open",
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
        self.channel = Channel[ToProcess](socket.create_connection((LOCAL, port)), ToProcess)
        self.channel.send(Joined(name))
        self.member_name, self.play = name, play
        self.start()

    def run(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            self.plan = self.channel.receive()
            self.channel.send(Prepared())
            while isinstance(load := self.channel.receive(), Load):
                self.play(self, load)


Play = Callable[[Member, Load], None]


def answer(member: Member, load: Load) -> None:
    """Three requests sent, none lost."""
    noted = Noted(0, "query", 0, Interval(sent=3))
    member.channel.send(Sampled(Samples([noted], {"HTTP 500": member.member_name})))
    process = Process(name=member.member_name, cpu=0.1, lag=0.0, late=0.0)
    member.channel.send(Done(processes=[process], machine_cpu=[0.25], compared=4))


def leave(member: Member, load: Load) -> None:
    member.channel.close()


def fail(member: Member, load: Load) -> None:
    member.channel.send(Broken("Traceback: it broke"))


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


def test_each_process_gets_its_number() -> None:
    with gathered(answer, answer) as (_, members):
        numbers = {(one.plan.process, one.plan.processes) for one in members if isinstance(one.plan, Plan)}
    assert numbers == {(0, 2), (1, 2)}


def test_records_of_all_processes_add_up() -> None:
    with gathered(answer, answer) as (conductor, _):
        [measured] = conductor.run([STEADY], lambda *_: None)
        assert measured.intervals["query"][0].sent == 6
        assert [process.name for process in measured.processes] == ["process 0", "process 1"]
        assert (measured.machine_cpu, conductor.compared) == (0.25, 8)
        assert conductor.examples.keys() == {"HTTP 500"}


def test_search_ends_with_what_the_shape_returns() -> None:
    found = Capacity(objective="o", rate=5, fails_at=None, confirmed=0, tries=0, probes=[])
    seen: list[Measured] = []

    def shape() -> Shape:
        seen.append((yield STEADY))
        seen.append((yield STEADY))
        return found

    with gathered(answer) as (conductor, _):
        measured, capacity = conductor.search(shape(), lambda *_: None)
    assert capacity is found
    assert measured == seen
    assert measured[0].began == 0.0 < measured[1].began


def test_ctrl_c_keeps_what_was_measured() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with gathered(silent) as (conductor, _):
        conductor.run([STEADY], interrupt)
        assert conductor.stopped


@pytest.mark.parametrize(("play", "said"), [(leave, "process 1"), (fail, "it broke")])
def test_lost_process_fails_the_run(play: Play, said: str) -> None:
    with gathered(answer, play) as (conductor, _), pytest.raises(HarnessFailed, match=said):
        conductor.run([STEADY], lambda *_: None)


def test_silent_process_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.2)
    with gathered(silent) as (conductor, _), pytest.raises(HarnessFailed, match="sent nothing"):
        conductor.run([STEADY], lambda *_: None)


def test_surplus_process_is_refused() -> None:
    with gathered(answer) as (conductor, _):
        surplus = socket.create_connection((LOCAL, conductor.port))
        with pytest.raises(EOFError):
            Channel[ToProcess](surplus, ToProcess).receive(10)
        [measured] = conductor.run([STEADY], lambda *_: None)
        assert len(measured.processes) == 1


def test_strangers_do_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    conductor = Conductor(LOCAL, 0, 1, lambda: None)
    with socket.create_connection((LOCAL, conductor.port)) as stranger:
        stranger.sendall(b"\x00\x00\x00\x03abc")
        member = Member(conductor.port, "process 0", answer)
        conductor.gather(plan(), ["query"])
    assert isinstance(member.plan, Plan)
    conductor.close()


def test_dead_child_ends_the_wait() -> None:
    def dead() -> None:
        raise HarnessFailed("it ended with 1")

    conductor = Conductor(LOCAL, 0, 1, dead)
    with pytest.raises(HarnessFailed, match="ended with 1"):
        conductor.gather(plan(), ["query"])
    conductor.close()


def test_missing_processes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    conductor = Conductor(LOCAL, 0, 2, lambda: None)
    with pytest.raises(HarnessFailed, match="0 of 2"):
        conductor.gather(plan(), ["query"])
    conductor.close()


def test_port_in_use_is_named() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HarnessFailed, match=str(port)):
            Conductor(LOCAL, port, 1, lambda: None)
