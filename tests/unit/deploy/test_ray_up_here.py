"""`triptych ray up --local` stops in order on signals, with exit code 0."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from signal import SIGTERM

import pytest
from ray._private import services, utils

from triptych.deploy.ray import command, running
from triptych.deploy.ray.config import ClusterConfig, Pool, Routers

# Runs the command without a cluster. Each step prints its name, and a step named in argv waits for a line.
DRIVER = """
import signal, sys
import ray._private.utils
from types import SimpleNamespace
from triptych.deploy.ray import command, running
from triptych.deploy.ray.__main__ import cli
from triptych.deploy.ray.config import ClusterConfig, Pool

def step(name, result=None):
    def run(*_, **__):
        print(name, flush=True)
        if name in sys.argv:
            sys.stdin.readline()
        return result
    return run

def init(*_, **__):
    # As Ray does.
    ray._private.utils.set_sigterm_handler(lambda number, _: sys.exit(number))
    step("connect")()
    print("connected", flush=True)
    command.ray.is_initialized = lambda: True

command.ray.is_initialized = lambda: False
running.ray.init = init
command.demo.make = step("make", ClusterConfig(pools={"code": Pool(model="/variants/code")}))
command.start, command.stop = step("start"), step("stop")
command.wait = step("wait", SimpleNamespace(settled=True, routers=["http://router"]))
command.render = lambda _: "all runs"
command.ray.shutdown = step("shutdown")
cli(["up", "--local"])
"""
STEPS = ("make", "connect", "connected", "start", "wait", "stopping", "stop", "stopping at once", "shutdown")
SERVING = "From another terminal:"


BEGUN = ["make", "connect", "connected", "start", "wait"]
STOPPED = ["stopping", "stop", "shutdown"]


@pytest.mark.parametrize(
    ("signals", "steps"),
    [
        *(([(SERVING, number)], [*BEGUN, *STOPPED]) for number in command.STOP_SIGNALS),
        ([("make", SIGTERM)], ["make", "stopping", "shutdown"]),
        # Ray is not interrupted while it starts, because it would leave processes.
        *(([("connect", number)], [*BEGUN[:3], *STOPPED]) for number in command.STOP_SIGNALS),
        ([("start", SIGTERM)], [*BEGUN[:4], *STOPPED]),
        ([(SERVING, SIGTERM), ("stop", SIGTERM)], [*BEGUN, *STOPPED[:2], "stopping at once", "shutdown"]),
    ],
)
async def test_signals_end_it_in_order(signals: list[tuple[str, signal.Signals]], steps: list[str]) -> None:
    left = list(signals)
    driver = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DRIVER),
        *(at for at, _ in signals),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    assert driver.stderr is not None
    seen = []
    try:
        async with asyncio.timeout(60):
            async for line in driver.stdout:
                said = line.decode().strip()
                if left and said.endswith(left[0][0]):
                    at, number = left.pop(0)
                    driver.send_signal(number)
                    if at in STEPS:
                        driver.stdin.write(b"\n")
                if said in STEPS:
                    seen.append(said)
            assert (await driver.stderr.read()).decode() == ""
            assert await driver.wait() == 0
    finally:
        if driver.returncode is None:
            driver.kill()
    assert seen == steps


def test_a_closed_terminal_stops_it_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # The output after the terminal is closed.
    noting = DRIVER.replace(
        "print(name, flush=True)", f"print(name, file=open({str(log)!r}, 'a'), flush=True)"
    )
    leader, terminal = pty.openpty()
    driver = subprocess.Popen(
        # Its own controlling terminal, as in a shell.
        ["setsid", "--ctty", sys.executable, "-c", noting],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    # The last line before it waits for a signal.
    while b"]}'" not in seen:
        seen += os.read(leader, 4096)
    os.close(leader)
    assert driver.wait(60) == 0
    assert log.read_text().split() == ["make", "connect", "start", "wait", "stop", "shutdown"]


@pytest.mark.parametrize(("host", "listens"), [(None, "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
def test_local_routers_listen_on_loopback(host: str | None, listens: str) -> None:
    config = ClusterConfig(pools={"code": Pool(model="/variants/code")}, routers=Routers(host=host))
    assert command.on_loopback(config).routers.host == listens


def test_local_ray_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(utils, "set_sigterm_handler", None)
    monkeypatch.setattr(running.ray, "init", lambda _, _node_ip_address, **__: given.append(_node_ip_address))
    running.connect(None, local=True)
    assert [services.resolve_ip_for_localhost(address) for address in given] == given
    assert given[0].startswith("127.")
