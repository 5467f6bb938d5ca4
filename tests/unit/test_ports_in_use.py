"""A port in use is refused before anything slow, and the message names the setting."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS

MODEL = Path(__file__).parents[1] / "data" / "nowhere"


@pytest.mark.parametrize(
    ("command", "prefix", "options", "status"),
    [
        ("router", "ROUTER_", ("--discovery", "nowhere"), 1),
        ("worker", "WORKER_", ("--model", str(MODEL)), os.EX_CONFIG),
    ],
)
def test_port_in_use_is_refused(command: str, prefix: str, options: tuple[str, ...], status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = (sys.executable, "-m", "triptych", command, "--port", port, *options)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=GUARD_SECONDS)
    assert done.returncode == status
    assert f"127.0.0.1:{port}" in done.stderr
    assert f"{prefix}PORT" in done.stderr
