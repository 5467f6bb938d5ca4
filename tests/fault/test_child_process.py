"""A child process ends with its whole group, and with its parent."""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from triptych.deploy.common.child_process import ChildProcess

# Starts a child, and writes both process IDs to a file.
PARENT = 'sleep 1000 & echo $$ $! > "$0.part"; mv "$0.part" "$0"; wait'


async def test_unwatched_child_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_room)
    with pytest.raises(OSError, match="too many"):
        ChildProcess(("sleep", "1000"), os.environ)
    assert psutil.Process().children() == []


# Is killed before the guard of its child runs.
KILLED_EARLY = """
import asyncio, os, signal
from triptych.deploy.common import child_process

def guard_group(group):
    print(group, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    child_process.guard_group = guard_group
    child_process.ChildProcess(("sleep", "1000"), os.environ, print)

asyncio.run(main())
"""


def test_parent_killed_during_the_start_leaves_nothing() -> None:
    parent = subprocess.run([sys.executable, "-c", KILLED_EARLY], stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(parent.stdout))
        try:
            child.wait(GUARD_SECONDS)
        finally:
            child.kill()


# Is killed when its child, and the child of this, run.
KILLED_LATER = """
import asyncio, os, sys
from triptych.deploy.common.child_process import ChildProcess

async def main():
    await ChildProcess(("sh", "-c", *sys.argv[1:]), os.environ).exited

asyncio.run(main())
"""


async def test_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_LATER, PARENT, str(pids))
    await eventually(pids.exists)
    processes = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    parent.kill()
    await parent.wait()
    assert not psutil.wait_procs(processes, GUARD_SECONDS)[1]


async def never() -> bool:
    return False


async def test_early_exit_fails_the_start() -> None:
    child = ChildProcess(("sh", "-c", "exit 3"), os.environ)
    with pytest.raises(RuntimeError, match="the child ended with 3"):
        await child.until(never, GUARD_SECONDS, "the child")


async def test_slow_start_fails() -> None:
    child = ChildProcess(("sleep", "1000"), os.environ)
    with pytest.raises(RuntimeError, match="not ready"):
        await child.until(never, 0.1, "the child")
    assert child.code is not None
