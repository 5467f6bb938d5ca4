"""A process that is to end with its parent ends at once if the parent has ended already.

`tests/fault/test_processes.py` kills a parent.
"""

import subprocess
import sys


def test_parent_may_have_ended_before() -> None:
    code = "from triptych.workers.shared import parent_death; parent_death.die_with_parent(1); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
