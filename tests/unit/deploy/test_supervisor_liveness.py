"""The supervisor kills children that hang, and only those."""

import os
import signal
from pathlib import Path

from tests.fakes.clock import skip
from tests.fakes.router import eventually
from tests.unit.deploy.fakes import Fakes
from triptych.deploy.local.supervisor import LIVE_QUESTIONS

# A child of a busy machine answers at least one question in this time.
QUICK = {"live_seconds": 3.0}


async def test_hanging_child_is_restarted(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router"), [fakes.spec("a")], **QUICK)
    await run.ready()
    await eventually(lambda: "a live" in fakes.events())
    os.kill(run.pid("a"), signal.SIGSTOP)
    await eventually(lambda: fakes.events().count("a ready") == 2)
    assert "a does not answer /live for 3 s; killing it" in run.text.getvalue()
    assert "a was ended by SIGKILL; death 1" in run.text.getvalue()


async def test_worker_that_is_not_live_is_restarted(start, fakes: Fakes, tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    run = start(fakes.spec("router"), [fakes.spec("a", dead_file=str(dead))], **QUICK)
    await run.ready()
    await eventually(lambda: "a live" in fakes.events())
    dead.touch()
    await eventually(lambda: "a was ended by SIGKILL" in run.text.getvalue())
    dead.unlink()
    await eventually(lambda: fakes.events().count("a ready") == 2)
    assert fakes.events().count("a dead") >= LIVE_QUESTIONS - 1


async def test_live_router_need_not_be_ready(start, fakes: Fakes, tmp_path: Path) -> None:
    # A router is not ready while one pool is down.
    run = start(fakes.spec("router", ready_file=str(tmp_path / "never")), [fakes.spec("a")], **QUICK)
    await eventually(lambda: fakes.events().count("router live") > LIVE_QUESTIONS + 1)
    assert fakes.events().count("router start") == 1
    os.kill(run.pid("router"), signal.SIGSTOP)
    await eventually(lambda: fakes.events().count("router start") == 2)


async def test_suspended_machine_kills_nothing(start, fakes: Fakes, tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    run = start(fakes.spec("router"), [fakes.spec("a", stall_file=str(stall))], **QUICK)
    await run.ready()
    await eventually(lambda: "a live" in fakes.events())
    stall.touch()
    await eventually(lambda: "a asked" in fakes.events())
    # While the supervisor waits for the answer to a probe.
    skip(3 * QUICK["live_seconds"])
    stall.unlink()
    answered = fakes.events().count("a live")
    await eventually(lambda: fakes.events().count("a live") > answered + 2)
    assert fakes.events().count("a start") == 1


async def test_draining_router_is_not_killed(start, fakes: Fakes) -> None:
    run = start(fakes.spec("router", linger=4.0), [fakes.spec("a")], **QUICK)
    await run.ready()
    await eventually(lambda: "router live" in fakes.events())
    await run.stop()
    assert "router exit" in fakes.events()
