"""The supervisor over real processes: start order, restarts, failed starts and stopping."""

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.fakes.clock import skip
from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from tests.fakes.router import eventually
from tests.unit.deploy.fakes import Fakes
from triptych.deploy.local.supervisor import GaveUp


async def test_workers_of_one_gate_take_turns(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", gate="0"), fakes.spec("b", gate="0")])
    await run.ready()
    events = [event for event in fakes.events() if event.endswith((" start", " ready"))]
    workers = [event for event in events if not event.startswith("router")]
    assert workers == ["a start", "a ready", "b start", "b ready"]


async def test_others_start_together(start, fakes: Fakes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = start(fakes.spec("router"), [fakes.spec(name, ready_file=str(go)) for name in "ab"])
    await eventually(lambda: {"a start", "b start"} <= set(fakes.events()))
    assert not run.all_ready.is_set()
    go.touch()
    await run.ready()


async def test_death_opens_the_gate(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", gate="0", exit_code=1), fakes.spec("b", gate="0")])
    await eventually(lambda: "b ready" in fakes.events() or run.task.done())
    with pytest.raises(GaveUp):
        await run.task
    assert "b start" in fakes.events()


async def test_lines_carry_the_name_of_the_child(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("retrieval-0", lines=["hello", "10%\r100%"], long=200_000)])
    await run.ready()
    await run.stop()
    lines = run.text.getvalue().splitlines()
    assert "retrieval-0 | hello" in lines
    assert "retrieval-0 | 100%" in lines
    assert all(" | " in line for line in lines)
    assert sum(line.count("x") for line in lines if line.startswith("retrieval-0 | x")) == 200_000


async def test_killed_child_is_restarted(start, fakes: Fakes, tmp_path: Path) -> None:
    grandchild = tmp_path / "grandchild"
    run = start(fakes.spec("router"), [fakes.spec("a", grandchild=str(grandchild))])
    await run.ready()
    first, engine = run.pid("a"), int(grandchild.read_text())
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: fakes.events().count("a ready") == 2)
    await eventually(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(engine))
    assert run.delays == [1.0]
    assert "a was ended by SIGKILL; death 1, starting it again in 1 s" in run.text.getvalue()
    assert len([event for event in fakes.events() if event.endswith(" start")]) == 3


@pytest.mark.parametrize(
    ("code", "said", "delays"),
    [
        (3, "ended with exit code 3 again and again", [1, 2]),
        (os.EX_CONFIG, "cannot work with its settings", []),
    ],
)
async def test_failing_start_ends_it(start, fakes: Fakes, code: int, said: str, delays: list[float]) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", exit_code=code, lines=["no such weights"])])
    with pytest.raises(GaveUp, match=f"a {said}") as reason:
        await run.task
    assert "no such weights" in str(reason.value)
    assert reason.value.status == (os.EX_CONFIG if code == os.EX_CONFIG else 1)
    assert run.delays == delays
    assert fakes.events().count("a start") == len(delays) + 1
    assert not psutil.pid_exists(run.pid("router"))


@pytest.mark.parametrize(("served", "delays"), [(0, [1, 2, 4, 8, 16, 30, 30]), (1000, [1, 1, 1])])
async def test_restarts_back_off(start, fakes: Fakes, served: int, delays: list[float]) -> None:
    # Each look at the clock is `served` seconds after the one before.
    clock = (float(now) for now in itertools.count(0, served))
    run = start(fakes.spec("router"), [fakes.spec("a"), fakes.spec("b")], clock=lambda: next(clock))
    await run.ready()
    others = [run.pid("router"), run.pid("b")]
    for life in range(1, len(delays) + 1):
        await eventually(lambda life=life: run.text.getvalue().count("a is ready") == life or run.task.done())
        os.kill(run.pid("a"), signal.SIGKILL)
    await eventually(lambda: run.text.getvalue().count("a is ready") > len(delays) or run.task.done())
    assert run.delays == delays
    assert others == [run.pid("router"), run.pid("b")]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\nexit 1", "a ended with exit code 1"),
        (f"#!/bin/sh\nexit {os.EX_CONFIG}", f"a ended with exit code {os.EX_CONFIG}"),
        (None, "a cannot be started ([Errno 2] No such file or directory"),
    ],
)
async def test_later_failed_start_ends_nothing(
    start, fakes: Fakes, tmp_path: Path, program: str | None, said: str
) -> None:
    a, python = fakes.spec("a"), tmp_path / "python"
    python.symlink_to(sys.executable)
    run = start(fakes.spec("router"), [replace(a, argv=(str(python), *a.argv[1:])), fakes.spec("b")])
    await run.ready()
    python.unlink()
    if program is not None:
        python.write_text(program)
        python.chmod(0o755)
    os.kill(run.pid("a"), signal.SIGKILL)
    await eventually(lambda: len(run.delays) > 5 or run.task.done())
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)
    await eventually(lambda: fakes.events().count("a ready") == 2 or run.task.done())
    assert not run.task.done()
    assert run.delays[:6] == [1, 2, 4, 8, 16, 30]
    assert said in run.text.getvalue()
    assert fakes.events().count("router start") == fakes.events().count("b start") == 1


async def test_router_stops_before_workers(start, fakes: Fakes, tmp_path: Path) -> None:
    grandchild = tmp_path / "grandchild"
    workers = [fakes.spec("a", grandchild=str(grandchild)), fakes.spec("b")]
    run = start(fakes.spec("router", linger=0.2), workers)
    await run.ready()
    engine = int(grandchild.read_text())
    await run.stop()
    ends = [event for event in fakes.events() if event.endswith((" term", " exit"))]
    assert ends[:2] == ["router term", "router exit"]
    assert set(ends[2:]) == {"a term", "a exit", "b term", "b exit"}
    await eventually(lambda: not psutil.pid_exists(engine))


async def test_slow_child_is_killed_at_the_end(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", stubborn=True)])
    await run.ready()
    run.supervisor.stop()
    await eventually(lambda: "a term" in fakes.events())
    skip(GUARD_SECONDS)
    await run.task
    assert "a exit" not in fakes.events()


async def test_second_stop_kills_at_once(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router", stubborn=True), [fakes.spec("a", stubborn=True)])
    await run.ready()
    run.supervisor.stop()
    await eventually(lambda: "router term" in fakes.events())
    run.supervisor.stop()
    async with hang_guard():
        await run.task


async def test_stop_during_the_start(start, fakes: Fakes, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    run = start(
        fakes.spec("router"), [fakes.spec("a", gate="0", ready_file=never), fakes.spec("b", gate="0")]
    )
    await eventually(lambda: "a start" in fakes.events())
    await run.stop()
    assert "b start" not in fakes.events()
    assert not psutil.pid_exists(run.pid("a"))
