"""A supervisor killed with SIGKILL leaves no process, even when its guard died first."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.deploy.fakes import Fakes, until, wait_gone

# Runs a supervisor over pickled specs. It writes the process IDs to a file when all are ready.
DRIVER = """
import asyncio, os, pickle, sys
from pathlib import Path
from triptych.deploy.common.process_guard import Guard
from triptych.deploy.local.output import Output
from triptych.deploy.local.supervisor import Supervisor

async def main(specs, report):
    guard = Guard()
    def ready():
        pids = [child.pid for child in supervisor.children.values()]
        Path(report + ".new").write_text(" ".join(map(str, [guard.pid, *pids])))
        os.rename(report + ".new", report)
    supervisor = Supervisor(specs[0], specs[1:], output=Output([]), guard=guard, stop_seconds=5,
                            on_ready=ready)
    await supervisor.run()

asyncio.run(main(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]))
"""


@pytest.mark.parametrize("guard_dies_first", [False, True], ids=["guarded", "guard killed first"])
async def test_killed_supervisor_leaves_nothing(fakes: Fakes, tmp_path: Path, guard_dies_first: bool) -> None:
    grandchild, report, specs = tmp_path / "grandchild", tmp_path / "report", tmp_path / "specs"
    options = {} if guard_dies_first else {"grandchild": str(grandchild)}
    specs.write_bytes(pickle.dumps([fakes.spec("router"), fakes.spec("a", **options), fakes.spec("b")]))
    supervisor = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", DRIVER, str(specs), str(report)], stdout=subprocess.DEVNULL
    )
    try:
        await until(report.exists)
        guard, *children = map(int, report.read_text().split())
        if guard_dies_first:
            os.kill(guard, signal.SIGKILL)
        else:
            children.append(int(grandchild.read_text()))
        assert len(children) == (3 if guard_dies_first else 4)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert await asyncio.to_thread(wait_gone, [guard, *children]) == []
