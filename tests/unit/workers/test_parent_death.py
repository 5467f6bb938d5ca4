"""A process ends with its parent."""

import subprocess
import sys

CHILD = (
    "from triptych.workers.shared.parent_death import die_with_parent; import sys, time; "
    "die_with_parent({parent}); print('waiting', flush=True); time.sleep(1000)"
)
PARENT = (
    "import os, subprocess, sys; code = sys.argv[1].format(parent=os.getpid());"
    "subprocess.run([sys.executable, '-c', code])"
)


def test_killed_parent_ends_its_child() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "waiting\n"
    parent.kill()
    # Ends when the child, which has the other end of the pipe, has ended.
    assert parent.stdout.read() == ""
    parent.wait()


def test_parent_may_have_ended_before() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD.format(parent=1)], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
