"""The supervisor over real processes: order, liveness, restarts, failed starts, and the end of everything."""

import asyncio
import contextlib
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.common.process_guard import Guard
from deploy.local import supervisor
from deploy.local.output import Output
from deploy.local.supervisor import GaveUp, Spec, Supervisor
from tests.unit.deploy.fakes import Fakes, until, wait_gone


class Run:
    """A supervisor at work, what it printed, and the delays it asked for."""

    def __init__(self, router: Spec, workers: list[Spec], **options: Any) -> None:
        self.text = io.StringIO()
        self.delays: list[float] = []
        self.all_ready = asyncio.Event()
        self.supervisor = Supervisor(
            router,
            workers,
            output=Output([router.name, *(spec.name for spec in workers)], self.text),
            guard=options.pop("guard"),
            stop_seconds=options.pop("stop_seconds", 20.0),
            on_ready=self.all_ready.set,
            sleep=self._sleep,
            **options,
        )
        self.task = asyncio.create_task(self.supervisor.run())

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0)

    async def ready(self) -> None:
        await until(lambda: self.all_ready.is_set() or self.task.done())
        assert self.all_ready.is_set(), self.text.getvalue()

    def pid(self, name: str) -> int:
        return self.supervisor._children[name].pid

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.task


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Run]]:
    runs: list[Run] = []
    guard = Guard()

    def start(*arguments: Any, **options: Any) -> Run:
        runs.append(Run(*arguments, guard=guard, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.supervisor.stop()
        run.supervisor.stop()
        with contextlib.suppress(GaveUp):
            await run.task
    guard.close()


async def test_workers_of_one_gate_start_one_after_another(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", gate="0"), fakes.spec("b", gate="0")])
    await run.ready()
    events = [event for event in fakes.events() if event.endswith((" start", " ready"))]
    workers = [event for event in events if not event.startswith("router")]
    assert workers == ["a start", "a ready", "b start", "b ready"]


async def test_workers_without_a_gate_start_together(start, fakes: Fakes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    workers = [fakes.spec(name, ready_file=str(go)) for name in "ab"]
    run = start(fakes.spec("router"), workers)
    await until(lambda: {"a start", "b start"} <= set(fakes.events()))
    assert not run.all_ready.is_set()
    go.touch()
    await run.ready()


async def test_a_worker_that_dies_while_starting_lets_the_next_one_through(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", gate="0", exit_code=1), fakes.spec("b", gate="0")])
    await until(lambda: "b ready" in fakes.events() or run.task.done())
    with pytest.raises(GaveUp):
        await run.task
    assert "b start" in fakes.events()


async def test_every_line_carries_the_name_of_its_child(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("retrieval-0", lines=["hello", "10%\r100%"], long=200_000)])
    await run.ready()
    await run.stop()
    lines = run.text.getvalue().splitlines()
    assert "retrieval-0 | hello" in lines
    assert "retrieval-0 | 100%" in lines
    assert all(" | " in line for line in lines)
    assert sum(line.count("x") for line in lines if line.startswith("retrieval-0 | x")) == 200_000


async def test_a_killed_worker_is_started_again_and_its_group_is_gone(
    start, fakes: Fakes, tmp_path: Path
) -> None:
    grandchild = tmp_path / "grandchild"
    run = start(fakes.spec("router"), [fakes.spec("a", grandchild=str(grandchild))])
    await run.ready()
    first, engine = run.pid("a"), int(grandchild.read_text())
    grandchild.unlink()
    os.kill(first, signal.SIGKILL)
    await until(lambda: fakes.events().count("a ready") == 2)
    assert await asyncio.to_thread(wait_gone, [first, engine]) == []
    assert run.delays == [1.0]
    assert "a was ended by SIGKILL; death 1, starting it again in 1 s" in run.text.getvalue()


async def test_the_router_is_started_again_too(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a")])
    await run.ready()
    os.kill(run.pid("router"), signal.SIGKILL)
    await until(lambda: fakes.events().count("router ready") == 2)
    assert fakes.events().count("a start") == 1


async def test_a_worker_that_dies_three_times_before_it_is_ready_ends_a_start(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", exit_code=3, lines=["no such weights"])])
    with pytest.raises(GaveUp, match="a ended with exit code 3 again and again") as reason:
        await run.task
    assert "no such weights" in str(reason.value)
    assert run.delays == [1.0, 2.0]
    assert fakes.events().count("a start") == 3
    assert await asyncio.to_thread(wait_gone, [run.pid("router")]) == []


async def test_a_worker_that_keeps_dying_is_backed_off_and_the_others_stay(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a"), fakes.spec("b")])
    await run.ready()
    router, b = run.pid("router"), run.pid("b")
    for life in range(1, 8):
        await until(lambda life=life: fakes.events().count("a ready") == life or run.task.done())
        os.kill(run.pid("a"), signal.SIGKILL)
    await until(lambda: fakes.events().count("a ready") == 8 or run.task.done())
    assert run.delays == [1, 2, 4, 8, 16, 30, 30]
    assert "a was ended by SIGKILL; death 6, starting it again in 30 s" in run.text.getvalue()
    assert [run.pid("router"), run.pid("b")] == [router, b]


@pytest.mark.parametrize("code", [1, os.EX_CONFIG])
async def test_a_worker_that_cannot_start_any_more_ends_nothing_and_comes_back(
    start, fakes: Fakes, tmp_path: Path, code: int
) -> None:
    gone = tmp_path / "gone"
    run = start(fakes.spec("router"), [fakes.spec("a", exit_code=code, exit_file=str(gone)), fakes.spec("b")])
    await run.ready()
    gone.touch()
    os.kill(run.pid("a"), signal.SIGKILL)
    await until(lambda: fakes.events().count("a start") > 5 or run.task.done())
    gone.unlink()
    await until(lambda: fakes.events().count("a ready") == 2 or run.task.done())
    assert not run.task.done()
    assert fakes.events().count("router start") == fakes.events().count("b start") == 1


async def test_a_configuration_error_ends_a_start_at_once(start, fakes: Fakes) -> None:
    lines = ["WORKER_TASK: wrong variant"]
    run = start(fakes.spec("router"), [fakes.spec("a", exit_code=os.EX_CONFIG, lines=lines)])
    with pytest.raises(GaveUp, match="cannot work with its settings") as reason:
        await run.task
    assert "WORKER_TASK: wrong variant" in str(reason.value)
    assert fakes.events().count("a start") == 1
    assert run.delays == []


def executable(spec: Spec, folder: Path) -> tuple[Spec, Path]:
    """`spec`, started through a link of its own; while that is away every start fails with an `OSError`."""
    link = folder / "python"
    link.symlink_to(spec.argv[0])
    return replace(spec, argv=(str(link), *spec.argv[1:])), link


async def test_a_worker_that_cannot_be_forked_is_backed_off_and_comes_back(
    start, fakes: Fakes, tmp_path: Path
) -> None:
    a, link = executable(fakes.spec("a"), tmp_path)
    run = start(fakes.spec("router"), [a, fakes.spec("b")])
    await run.ready()
    target = link.readlink()
    link.unlink()
    os.kill(run.pid("a"), signal.SIGKILL)
    await until(lambda: len(run.delays) > 5 or run.task.done())
    link.symlink_to(target)
    await until(lambda: fakes.events().count("a ready") == 2 or run.task.done())
    assert not run.task.done()
    assert run.delays[:6] == [1, 2, 4, 8, 16, 30]
    assert "a cannot be started ([Errno 2] No such file or directory" in run.text.getvalue()
    assert fakes.events().count("router start") == fakes.events().count("b start") == 1


async def test_a_worker_that_can_never_be_forked_ends_a_start(start, fakes: Fakes, tmp_path: Path) -> None:
    a, link = executable(fakes.spec("a"), tmp_path)
    link.unlink()
    run = start(fakes.spec("router"), [a])
    with pytest.raises(GaveUp, match=r"a cannot be started .* again and again"):
        await run.task
    assert run.delays == [1, 2]


@pytest.fixture
def _quick_liveness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LIVE_SECONDS", 1.0)


@pytest.mark.usefixtures("_quick_liveness")
@pytest.mark.parametrize("name", ["router", "a"])
async def test_a_stopped_child_is_killed_and_started_again(start, fakes: Fakes, name: str) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a")])
    await run.ready()
    await until(lambda: f"{name} live" in fakes.events())
    stopped = run.pid(name)
    os.kill(stopped, signal.SIGSTOP)
    await until(lambda: fakes.events().count(f"{name} ready") == 2)
    assert await asyncio.to_thread(wait_gone, [stopped]) == []
    assert f"{name} does not answer /live for 1 s; killing it" in run.text.getvalue()
    assert f"{name} was ended by SIGKILL; death 1" in run.text.getvalue()


@pytest.mark.usefixtures("_quick_liveness")
async def test_a_worker_that_says_it_is_not_live_is_started_again(
    start, fakes: Fakes, tmp_path: Path
) -> None:
    dead = tmp_path / "dead"
    run = start(fakes.spec("router"), [fakes.spec("a", dead_file=str(dead))])
    await run.ready()
    await until(lambda: "a live" in fakes.events())
    dead.touch()
    await until(lambda: "a was ended by SIGKILL" in run.text.getvalue())
    dead.unlink()
    await until(lambda: fakes.events().count("a ready") == 2)
    assert fakes.events().count("a dead") >= supervisor.LIVE_QUESTIONS - 1


@pytest.mark.usefixtures("_quick_liveness")
async def test_a_live_router_that_is_not_ready_is_watched_but_not_killed(
    start, fakes: Fakes, tmp_path: Path
) -> None:
    # As it is while one pool is down.
    run = start(fakes.spec("router", ready_file=str(tmp_path / "never")), [fakes.spec("a")])
    await until(lambda: fakes.events().count("router live") > supervisor.LIVE_QUESTIONS + 1)
    assert fakes.events().count("router start") == 1
    os.kill(run.pid("router"), signal.SIGSTOP)
    await until(lambda: fakes.events().count("router start") == 2)


@pytest.mark.usefixtures("_quick_liveness")
async def test_a_suspended_supervisor_does_not_kill_its_children(start, fakes: Fakes, tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    run = start(fakes.spec("router"), [fakes.spec("a", stall_file=str(stall))])
    await run.ready()
    await until(lambda: "a live" in fakes.events())
    stall.touch()
    await until(lambda: "a asked" in fakes.events())
    # Blocks the supervisor, while a question of its own waits for an answer.
    time.sleep(3 * supervisor.LIVE_SECONDS)  # noqa: ASYNC251
    stall.unlink()
    answered = fakes.events().count("a live")
    await until(lambda: fakes.events().count("a live") > answered + 2)
    assert fakes.events().count("a start") == 1


@pytest.mark.usefixtures("_quick_liveness")
async def test_a_router_that_drains_is_not_asked_whether_it_is_live(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router", linger=2.0), [fakes.spec("a")])
    await run.ready()
    await until(lambda: "router live" in fakes.events())
    await run.stop()
    assert "router exit" in fakes.events()


async def test_stopping_ends_the_router_before_the_workers_and_all_that_they_started(
    start, fakes: Fakes, tmp_path: Path
) -> None:
    grandchild = tmp_path / "grandchild"
    workers = [fakes.spec("a", grandchild=str(grandchild)), fakes.spec("b")]
    run = start(fakes.spec("router", linger=0.2), workers)
    await run.ready()
    pids = [run.pid(name) for name in ("router", "a", "b")]
    await run.stop()
    ends = [event for event in fakes.events() if event.endswith((" term", " exit"))]
    assert ends[:2] == ["router term", "router exit"]
    assert set(ends[2:]) == {"a term", "a exit", "b term", "b exit"}
    assert await asyncio.to_thread(wait_gone, [*pids, int(grandchild.read_text())]) == []


async def test_what_does_not_end_in_time_is_killed(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a", stubborn=True)], stop_seconds=0.5)
    await run.ready()
    await run.stop()
    assert "a term" in fakes.events()
    assert "a exit" not in fakes.events()


async def test_stopping_twice_kills_at_once(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router", stubborn=True), [fakes.spec("a", stubborn=True)], stop_seconds=300)
    await run.ready()
    run.supervisor.stop()
    await until(lambda: "router term" in fakes.events())
    run.supervisor.stop()
    async with asyncio.timeout(20):
        await run.task


async def test_stopping_while_children_start_leaves_none(start, fakes: Fakes, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    run = start(
        fakes.spec("router"), [fakes.spec("a", gate="0", ready_file=never), fakes.spec("b", gate="0")]
    )
    await until(lambda: "a start" in fakes.events())
    await run.stop()
    assert "b start" not in fakes.events()
    assert await asyncio.to_thread(wait_gone, [run.pid("a")]) == []


def test_restart_delays_double_up_to_a_maximum() -> None:
    assert [supervisor.restart_delay(deaths) for deaths in (1, 2, 3, 5, 6, 5000)] == [1, 2, 4, 16, 30, 30]


async def test_a_child_that_served_long_starts_over(start, fakes: Fakes) -> None:
    now = iter(range(0, 100_000, 1000))
    run = start(fakes.spec("router"), [fakes.spec("a")], clock=lambda: float(next(now)))
    await run.ready()
    for life in range(1, 4):
        await until(lambda life=life: fakes.events().count("a ready") == life or run.task.done())
        os.kill(run.pid("a"), signal.SIGKILL)
    await until(lambda: len(run.delays) == 3)
    assert run.delays == [1, 1, 1]
