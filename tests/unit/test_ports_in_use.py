"""A port in use is refused before anything slow, and the message names the setting."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.loadtests.server_processes import free_port

MODEL = Path(__file__).parents[1] / "data" / "nowhere"


@pytest.mark.parametrize(
    ("command", "setting", "status"),
    [
        ("router --discovery nowhere", "ROUTER_PORT", 1),
        (f"worker --model {MODEL}", "WORKER_PORT", os.EX_CONFIG),
        ("serve", "ROUTER_PORT", os.EX_CONFIG),
        ("serve", "DEPLOY_WORKER_PORT", os.EX_CONFIG),
    ],
)
def test_port_in_use_is_refused(command: str, setting: str, status: int, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "triptych", *command.split()]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {**os.environ, "ROUTER_PORT": str(free_port()), setting: port}
        done = subprocess.run(
            argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=GUARD_SECONDS
        )
    assert done.returncode == status
    assert f"127.0.0.1:{port}" in done.stderr
    assert setting in done.stderr
    assert list(tmp_path.iterdir()) == []
