"""Processes that are to end with their parent. `tests/fault/test_processes.py` kills a router's parent."""

import subprocess
import sys

import psutil

from tests.fakes.hang_guard import GUARD_SECONDS

# Prints the process ID of a child once that has started two of its own.
PARENT = """
import subprocess, sys
from triptych.workers.shared.parent_death import guard_group
argv = ["/bin/sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"]
child = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE)
guard_group(child.pid)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_parent_may_have_ended_before() -> None:
    code = "from triptych.workers.shared import parent_death; parent_death.die_with_parent(1); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_group_ends_with_a_killed_parent() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        group = [child, *child.children(recursive=True)]
        assert len(group) == 3
        parent.kill()
    assert psutil.wait_procs(group, GUARD_SECONDS)[1] == []
