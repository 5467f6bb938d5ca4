"""How the conductor gathers processes, runs loads, and notices processes that are lost."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec
import pytest

from tests.fakes.clock import pass_until
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from triptych.loadtests import conductor as module
from triptych.loadtests.assignment import Broken, Done, HarnessFailed, Load, Plan, Stopped, ToConductor
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.dialects import Target
from triptych.loadtests.recording import Samples, Total
from triptych.loadtests.results import Interval, Process, Segment
from triptych.loadtests.shapes import Shape

LOCAL = "127.0.0.1"
STEADY = Segment(name="steady", seconds=0.2, rate=5)
Socket = aiohttp.ClientWebSocketResponse


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


def conducting(size: int = 1, host: str = LOCAL) -> Conductor:
    return Conductor(host, 0, size, plan(), ["query"], lambda: None)


async def tell(member: Socket, message: ToConductor) -> None:
    await member.send_bytes(msgspec.json.encode(message))


Play = Callable[[Socket, str, Load], Awaitable[None]]


async def answer(member: Socket, name: str, load: Load) -> None:
    """Three requests sent, none lost."""
    await tell(member, Samples([(0, 0, "query", Interval(sent=3))], {"HTTP 500": name}))
    process = Process(name=name, cpu=0.1, late=0.0, machine_cpu=0.5)
    await tell(member, Done(processes=[process], compared=4))


async def fail(member: Socket, name: str, load: Load) -> None:
    await tell(member, Broken("failed:\nTraceback: it broke"))


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
        [measured] = await conductor.run([STEADY], lambda *_: None)
        assert measured.intervals["query"][0].sent == 6
        assert [process.name for process in measured.processes] == ["process 0", "process 1"]
        assert conductor.compared == 8
        assert conductor.examples.keys() == {"HTTP 500"}


async def test_each_process_has_a_name_of_its_own() -> None:
    plans: list[Plan] = []
    async with conducting(3) as conductor, asyncio.TaskGroup() as group:
        for number, name in enumerate(("a", "a (3)", "a"), 1):
            group.create_task(take_part(conductor.port, name, answer, plans))
            await eventually(lambda: len(plans) == number)  # noqa: B023
        assert len(conductor._members) == 3
        await conductor.gather()
        await asyncio.gather(*(member.close() for _, member in conductor._members.values()))


async def test_ctrl_c_before_the_first_load_gives_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 600.0)
    async with gathered(hang) as (conductor, _):
        conductor.stop()
        with pytest.raises(KeyboardInterrupt):
            await conductor.run([STEADY], lambda *_: None)


async def test_ctrl_c_keeps_what_a_search_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)

    def search() -> Shape:
        for seconds in (0.2, 600.0):
            yield msgspec.structs.replace(STEADY, seconds=seconds)
        raise AssertionError("this load was stopped")

    async def second(member: Socket, name: str, load: Load) -> None:
        await answer(member, name, load)
        if load.segments[0].seconds == 600.0:
            conductor.stop()

    async with gathered(second) as (conductor, _):
        measured, capacity = await conductor.search(search(), lambda *_: None)
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
        [measured] = await conductor.run([long], watch)
    assert measured.segment.seconds <= seen[0]


@pytest.mark.parametrize(("play", "said"), [(fail, "it broke"), (lose, "has ended")])
async def test_lost_process_fails_the_run(play: Play, said: str) -> None:
    async with gathered(answer, play) as (conductor, _):
        with pytest.raises(HarnessFailed, match=f"(?s)process 1.*{said}"):
            await conductor.run([STEADY], lambda *_: None)


async def test_silent_process_fails_the_run() -> None:
    asked = asyncio.Event()

    async def silent(member: Socket, name: str, load: Load) -> None:
        asked.set()
        await hang(member, name, load)

    async with gathered(silent) as (conductor, _):
        running = asyncio.create_task(conductor.run([STEADY], lambda *_: None))
        await asked.wait()
        await pass_until(running.done)
        with pytest.raises(HarnessFailed, match="process 0 is lost"):
            await running


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ('{"type": "Samples", "noted": [], "examples": 1}', "examples"),
        ('{"type": "Done", "processes": null, "compared": 0}', "processes"),
        ("Segmentation fault", "JSON"),
    ],
)
async def test_malformed_message_names_its_process_and_field(sent: str, field: str) -> None:
    async def malformed(member: Socket, name: str, load: Load) -> None:
        await member.send_str(sent)

    async with gathered(answer, malformed) as (conductor, _):
        with pytest.raises(HarnessFailed, match=f"process 1 sent .*{field}"):
            await conductor.run([STEADY], lambda *_: None)


async def test_process_that_leaves_before_the_load_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    plans: list[Plan] = []
    async with conducting(2) as conductor:
        parts = []
        for name in ("first", "second"):
            parts.append(asyncio.create_task(take_part(conductor.port, name, answer, plans)))
            await eventually(lambda: len(conductor._members) == len(parts))
        gathering = asyncio.create_task(conductor.gather())
        parts[0].cancel()
        await eventually(lambda: len(conductor._members) == 1)
        parts.append(asyncio.create_task(take_part(conductor.port, "third", answer, plans)))
        await gathering
        [measured] = await conductor.run([STEADY], lambda *_: None)
        assert [process.name for process in measured.processes] == ["second", "third"]
    assert plans[-1].process == 0
    assert "first has ended" in capsys.readouterr().out
    await asyncio.gather(*parts, return_exceptions=True)


async def test_surplus_process_finds_no_run() -> None:
    async with gathered(hang) as (conductor, _):
        # Otherwise it would take part until the end.
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await asyncio.wait_for(take_part(conductor.port, "surplus", answer, []), GUARD_SECONDS)


@pytest.mark.parametrize("host", [LOCAL, "[::]"])
async def test_strangers_do_not_join(host: str) -> None:
    if host != LOCAL and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    async with conducting(host=host) as conductor, aiohttp.ClientSession() as session:
        async with session.get(f"http://{LOCAL}:{conductor.port}/") as refused:
            assert refused.status == 400
        task = asyncio.create_task(take_part(conductor.port, "process 0", answer, []))
        await conductor.gather(GUARD_SECONDS)
    await task


async def test_load_that_never_ends_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", -1000.0)
    async with gathered(hang) as (conductor, _):
        with pytest.raises(HarnessFailed, match="1 of 1 processes joined, and not all have answered"):
            await conductor.run([STEADY], lambda *_: None)


async def test_missing_processes_are_counted() -> None:
    async with conducting(2) as conductor:
        with pytest.raises(HarnessFailed, match="0 of 2"):
            await conductor.gather(0.0)


def test_port_in_use_is_named() -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HarnessFailed, match=str(port)):
            Conductor(LOCAL, port, 1, plan(), [], lambda: None)
