"""A supervisor killed with SIGKILL leaves no process."""

import asyncio
import pickle
import subprocess
import sys
from pathlib import Path

from tests.fakes.router import eventually
from tests.unit.deploy.fakes import Fakes, wait_gone

# Runs a supervisor over pickled specs. It writes the process IDs to a file when all are ready.
DRIVER = """
import asyncio, os, pickle, sys
from pathlib import Path
from triptych.deploy.local.output import Output
from triptych.deploy.local.supervisor import Supervisor

async def main(specs, report):
    def ready():
        pids = [child.pid for child in supervisor.children.values()]
        Path(report + ".new").write_text(" ".join(map(str, pids)))
        os.rename(report + ".new", report)
    output = Output(spec.name for spec in specs)
    supervisor = Supervisor(specs[0], specs[1:], output=output, stop_seconds=5, on_ready=ready)
    await supervisor.run()

asyncio.run(main(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]))
"""


async def test_killed_supervisor_leaves_nothing(fakes: Fakes, tmp_path: Path) -> None:
    grandchild, report, specs = tmp_path / "grandchild", tmp_path / "report", tmp_path / "specs"
    worker = fakes.spec("a", grandchild=str(grandchild))
    specs.write_bytes(pickle.dumps([fakes.spec("router"), worker, fakes.spec("b")]))
    supervisor = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", DRIVER, str(specs), str(report)], stdout=subprocess.DEVNULL
    )
    try:
        await eventually(report.exists)
        pids = [*map(int, report.read_text().split()), int(grandchild.read_text())]
        assert len(pids) == 4
    finally:
        supervisor.kill()
        supervisor.wait()
    assert await asyncio.to_thread(wait_gone, pids) == []
