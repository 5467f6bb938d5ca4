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
from triptych.deploy.common.child_process import ChildProcess, StartFailed

# Ignores SIGTERM, starts a child, and writes both process IDs to a file.
STUBBORN = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
    "part = sys.argv[1] + '.part'\n"
    "open(part, 'w').write(f'{os.getpid()} {below.pid}')\n"
    "os.rename(part, sys.argv[1])\n"
    "time.sleep(1000)\n"
)


async def numbers(path: Path) -> list[psutil.Process]:
    """The processes whose IDs are in the file `path`, once it exists."""
    await eventually(path.exists)
    return [
        psutil.Process(int(number)) for number in await asyncio.to_thread(lambda: path.read_text().split())
    ]


async def test_stubborn_child_is_killed_with_its_group(tmp_path: Path) -> None:
    child = ChildProcess((sys.executable, "-c", STUBBORN, str(tmp_path / "pids")), os.environ)
    processes = await numbers(tmp_path / "pids")
    assert child.code is None
    await child.stop(0.1)
    assert child.code == -signal.SIGKILL
    assert not psutil.wait_procs(processes, GUARD_SECONDS)[1]


async def test_unwatched_child_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_room)
    with pytest.raises(OSError, match="too many"):
        ChildProcess((sys.executable, "-c", "import time; time.sleep(1000)"), os.environ)
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
    child = ChildProcess((sys.executable, "-c", *sys.argv[1:]), os.environ)
    await child.exited

asyncio.run(main())
"""


async def test_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_LATER, STUBBORN, str(pids))
    processes = await numbers(pids)
    parent.kill()
    await parent.wait()
    assert not psutil.wait_procs(processes, GUARD_SECONDS)[1]


async def never() -> bool:
    return False


async def test_early_exit_fails_the_start() -> None:
    child = ChildProcess((sys.executable, "-c", "raise SystemExit(3)"), os.environ)
    with pytest.raises(StartFailed, match="the child ended with 3"):
        await child.until(never, GUARD_SECONDS, "the child")


async def test_slow_start_fails() -> None:
    child = ChildProcess((sys.executable, "-c", "import time; time.sleep(1000)"), os.environ)
    with pytest.raises(StartFailed, match="not ready"):
        await child.until(never, 0.1, "the child")
    assert child.code is not None
