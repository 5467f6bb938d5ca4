"""How the conductor gathers processes, runs loads, and notices processes that are lost."""

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec
import pytest

from tests.fakes.clock import pass_until
from tests.fakes.router import eventually
from triptych.loadtests import conductor as module
from triptych.loadtests.assignment import Broken, Done, HarnessFailed, Load, Plan, Stopped, ToConductor
from triptych.loadtests.capacity import Shape
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.crew import Crew
from triptych.loadtests.dialects import Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.recording import Samples, Total
from triptych.loadtests.results import Interval, Process, Segment

LOCAL = "127.0.0.1"
STEADY = Segment(name="steady", seconds=0.2, rate=5)
Socket = aiohttp.ClientWebSocketResponse


def plan(**fields: object) -> Plan:
    target = Target(addresses={"": "http://127.0.0.1:9"}, dialect="jina", model="m", timeout=5)
    golden = io.BytesIO()
    Golden("nowhere").save(golden)
    usual = {
        "target": target,
        "scenario": '{"about": "x", "flows": [{"name": "query", "task": "retrieval.query"}]}',
        "seed": "seed",
        "arrivals": "constant",
        "in_flight": 10,
        "calibration": {},
        "golden": golden.getvalue(),
    }
    return Plan(**usual | fields)  # type: ignore[arg-type]


def conducting(size: int = 1, host: str = LOCAL, port: int = 0) -> Conductor:
    return Conductor(Crew(size, host, port), plan(), ["query"])


async def tell(member: Socket, message: ToConductor) -> None:
    await member.send_bytes(msgspec.json.encode(message))


Play = Callable[[Socket, str, Load], Awaitable[None]]


async def answer(member: Socket, name: str, load: Load) -> None:
    """Three requests sent, none lost."""
    await tell(member, Samples([(0, 0, "query", Interval(sent=3))], {"HTTP 500": name}))
    process = Process(name=name, cpu=0.1, late=0.0, machine_cpu=0.5)
    await tell(member, Done(processes=[process], compared=4))


async def fail(member: Socket, name: str, load: Load) -> None:
    await tell(member, Broken(f"{name} failed:\nTraceback: it broke"))


async def lose(member: Socket, name: str, load: Load) -> None:
    await member.close()


async def hang(member: Socket, name: str, load: Load) -> None:
    """Not even a sign of life."""
    await asyncio.Event().wait()


async def take_part(port: int, name: str, play: Play, plans: list[Plan]) -> None:
    """Join `port` as a process that does what `play` says with each load."""
    address = f"http://{LOCAL}:{port}/"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, params={"name": name}) as member,
    ):
        plans.append(msgspec.json.decode(await member.receive_bytes(), type=Plan))
        await tell(member, Samples([], {}))
        async for message in member:
            await play(member, name, msgspec.json.decode(message.data, type=Load))


@contextlib.asynccontextmanager
async def gathered(*plays: Play) -> AsyncIterator[tuple[Conductor, list[Plan]]]:
    plans: list[Plan] = []
    async with conducting(len(plays)) as conductor:
        tasks = [
            asyncio.create_task(take_part(conductor.port, f"process {number}", play, plans))
            for number, play in enumerate(plays)
        ]
        await conductor.gather()
        yield conductor, plans
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_records_of_all_processes_add_up() -> None:
    async with gathered(answer, answer) as (conductor, plans):
        assert {(one.process, one.processes) for one in plans} == {(0, 2), (1, 2)}
        [measured] = await conductor.load([STEADY], lambda *_: None)
        assert measured.intervals["query"][0].sent == 6
        assert [process.name for process in measured.processes] == ["process 0", "process 1"]
        assert conductor.compared == 8
        assert conductor.examples.keys() == {"HTTP 500"}


async def test_ctrl_c_before_the_first_load_gives_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 600.0)
    async with gathered(hang) as (conductor, _):
        conductor.stop()
        with pytest.raises(KeyboardInterrupt):
            await conductor.load([STEADY], lambda *_: None)


async def test_ctrl_c_keeps_what_a_search_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)

    def search() -> Shape:
        for seconds in (0.2, 600.0):
            yield [msgspec.structs.replace(STEADY, seconds=seconds)]
        raise AssertionError("this load was stopped")

    async def second(member: Socket, name: str, load: Load) -> None:
        await answer(member, name, load)
        if load.segments[0].seconds == 600.0:
            conductor.stop()

    async with gathered(second) as (conductor, _):
        measured, capacity = await conductor.run(search(), lambda *_: None)
        assert measured[0].intervals["query"][0].sent == 3
        assert (capacity, conductor.stopped) == (None, True)
        with pytest.raises(Stopped):
            conductor.stop()


async def test_stopped_load_ends_where_all_processes_have_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)
    long, seen = msgspec.structs.replace(STEADY, seconds=600.0), []

    async def report_once(member: Socket, name: str, load: Load) -> None:
        await tell(member, Samples([], {"HTTP 500": name}))

    def watch(total: Total, _: float) -> None:
        if seen:
            conductor.stop()
        if total.examples:
            seen.append(conductor.seconds)

    async with gathered(report_once) as (conductor, _):
        [measured] = await conductor.load([long], watch)
    assert measured.segment.seconds <= seen[0]


@pytest.mark.parametrize(("play", "said"), [(fail, "it broke"), (lose, "has ended")])
async def test_lost_process_fails_the_run(play: Play, said: str) -> None:
    async with gathered(answer, play) as (conductor, _):
        with pytest.raises(HarnessFailed, match=f"(?s)process 1.*{said}"):
            await conductor.load([STEADY], lambda *_: None)


async def test_silent_process_fails_the_run() -> None:
    asked = asyncio.Event()

    async def silent(member: Socket, name: str, load: Load) -> None:
        asked.set()
        await hang(member, name, load)

    async with gathered(silent) as (conductor, _):
        running = asyncio.create_task(conductor.load([STEADY], lambda *_: None))
        await asked.wait()
        await pass_until(running.done)
        with pytest.raises(HarnessFailed, match="process 0 is lost"):
            await running


@pytest.mark.parametrize("sent", ['{"type": "Done", "processes": null, "compared": 0}', "JSON?"])
async def test_malformed_message_names_its_process(sent: str) -> None:
    async def malformed(member: Socket, name: str, load: Load) -> None:
        await member.send_str(sent)

    async with gathered(answer, malformed) as (conductor, _):
        with pytest.raises(HarnessFailed, match=r"process 1 sent .*(processes|JSON)"):
            await conductor.load([STEADY], lambda *_: None)


async def test_process_that_leaves_before_the_load_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    plans: list[Plan] = []
    async with conducting(2) as conductor:
        gathering = asyncio.create_task(conductor.gather())
        first = asyncio.create_task(take_part(conductor.port, "first", answer, plans))
        await eventually(lambda: conductor._ready == {0})
        first.cancel()
        await eventually(lambda: not conductor._ready)
        others = [take_part(conductor.port, name, answer, plans) for name in ("second", "third")]
        parts = asyncio.gather(*others, return_exceptions=True)
        await gathering
        [measured] = await conductor.load([STEADY], lambda *_: None)
        assert [process.name for process in measured.processes] == ["second", "third"]
    assert {one.process for one in plans[1:]} == {0, 1}
    assert "first has ended" in capsys.readouterr().out
    await parts


async def test_run_that_ends_before_its_load_waits_for_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    async with conducting(2) as conductor:
        part = asyncio.create_task(take_part(conductor.port, "first", answer, []))
        await eventually(lambda: conductor._ready == {0})
    await part
    assert capsys.readouterr().out == ""


async def test_strangers_and_surplus_processes_are_refused() -> None:
    async with gathered(hang) as (conductor, _), aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await take_part(conductor.port, "surplus", answer, [])
        async with conducting() as free, session.get(f"http://{LOCAL}:{free.port}/") as refused:
            assert refused.status == 400
            assert not free._members


async def test_load_that_never_ends_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", -1000.0)
    async with gathered(hang) as (conductor, _):
        with pytest.raises(HarnessFailed, match="1 of 1 processes joined, and not all have answered"):
            await conductor.load([STEADY], lambda *_: None)


async def test_missing_processes_are_counted() -> None:
    async with conducting(2) as conductor:
        with pytest.raises(HarnessFailed, match="0 of 2"):
            await conductor.gather(0.0)


def test_port_in_use_is_named() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HarnessFailed, match=str(port)):
            conducting(port=port)
