"""A process ends with its parent."""

import os
import signal
import subprocess
import sys

CHILD = (
    "from workers.shared.parent_death import die_with_parent; import sys, time; die_with_parent({parent});"
)
CHILD += "print('waiting', flush=True); time.sleep(1000)"
PARENT = "import os, subprocess, sys; code = sys.argv[1].format(parent=os.getpid());"
PARENT += "child = subprocess.Popen([sys.executable, '-c', code]); print(child.pid, flush=True); child.wait()"


def test_a_killed_parent_ends_its_child() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        assert parent.stdout.readline() == "waiting\n"
        parent.kill()
        # The child had the other end of the pipe.
        assert parent.stdout.read() == ""
    finally:
        with_luck(child)
        parent.wait()


def with_luck(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def test_a_parent_that_has_ended_before() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD.format(parent=1)], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
