"""Processes of this machine that send load, when Ctrl-C or SIGKILL meets them before they have joined."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.fakes.hang_guard import GUARD_SECONDS

RUN = """
import signal, sys
from triptych.loadtests.crew import LocalCrew

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)
    LocalCrew(1, "127.0.0.1").start(int(sys.argv[1]))
    print("started", flush=True)
    sys.stdin.read()
"""


def test_processes_leave_ctrl_c_to_their_run_and_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    pipe = subprocess.PIPE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(GUARD_SECONDS)
        argv = [sys.executable, tmp_path / "run.py", str(listener.getsockname()[1])]
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as run:
            assert run.stdout is not None
            assert run.stderr is not None
            assert run.stdout.readline() == b"started\n"
            started = psutil.Process(run.pid).children()
            os.killpg(run.pid, signal.SIGINT)
            connection, _ = listener.accept()
            run.kill()
            assert psutil.wait_procs(started, GUARD_SECONDS)[1] == []
            assert run.stderr.read() == b""
        connection.close()
