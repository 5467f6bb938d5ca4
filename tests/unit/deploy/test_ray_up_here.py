"""`triptych ray up --local` stops in order on signals, with exit code 0."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import services, utils

from tests.exit_status import exit_status
from tests.fakes.hang_guard import GUARD_SECONDS
from triptych.deploy.ray import demo, up_here
from triptych.deploy.ray.__main__ import cli
from triptych.deploy.ray.config import ClusterConfig, Pool, Routers

ROOT = Path(__file__).parents[3]
BEGUN = ["make", "connect", "connected", "start", "wait", "serve"]
STOPPED = ["stop", "shutdown"]


@pytest.fixture
def _handlers() -> Iterator[None]:
    """The handlers of signals as they were before."""
    handlers = {number: signal.getsignal(number) for number in up_here.STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def up_local(steps: list[str], signals: dict[str, signal.Signals], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command without a cluster. Each step adds its name, and raises its signal, if any."""

    def step(name: str, result: object = None) -> Callable[..., Any]:
        def run(*_: object, **__: object) -> object:
            steps.append(name)
            if name in signals:
                signal.raise_signal(signals[name])
            return result

        return run

    def init(*_: object, **__: object) -> None:
        # As Ray does.
        utils.set_sigterm_handler(lambda number, _: sys.exit(number))
        step("connect")()
        steps.append("connected")
        monkeypatch.setattr(up_here.ray, "is_initialized", lambda: True)

    monkeypatch.setattr(up_here.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(up_here.ray, "shutdown", step("shutdown"))
    monkeypatch.setattr(
        demo, "make", step("make", ClusterConfig(pools={"code": Pool(model="/variants/code")}))
    )
    for name in ("start", "stop"):
        monkeypatch.setattr(up_here, name, step(name))
    seen = SimpleNamespace(settled=True, routers=["http://router"])
    monkeypatch.setattr(up_here, "wait", step("wait", seen))
    monkeypatch.setattr(up_here, "render", lambda _: "all runs")
    monkeypatch.setattr(up_here.signal, "pause", step("serve"))
    return int(str(exit_status(cli, "up", "--local")))


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize(
    ("signals", "steps"),
    [
        *(({"serve": number}, [*BEGUN, *STOPPED]) for number in up_here.STOP_SIGNALS),
        ({"make": SIGTERM}, ["make", "shutdown"]),
        # Ray is not interrupted while it starts, because it would leave processes.
        *(({"connect": number}, [*BEGUN[:3], *STOPPED]) for number in up_here.STOP_SIGNALS),
        ({"start": SIGTERM}, [*BEGUN[:4], *STOPPED]),
        ({"serve": SIGTERM, "stop": SIGTERM}, [*BEGUN, *STOPPED]),
    ],
)
def test_signals_end_it_in_order(
    signals: dict[str, signal.Signals],
    steps: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []
    assert up_local(seen, signals, monkeypatch) == 0
    assert seen == steps
    out = capsys.readouterr().out
    assert "stopping" in out
    assert ("stopping at once" in out) == ("stop" in signals)


# The same in a process of its own, with a file for the output after the terminal is closed.
DRIVER = """
import signal, sys
import pytest
from tests.unit.deploy.test_ray_up_here import up_local

class Log(list):
    pause = signal.pause

    def append(self, name):
        print(name, file=open(sys.argv[1], "a"), flush=True)
        if name == "serve":
            Log.pause()

sys.exit(up_local(Log(), {}, pytest.MonkeyPatch()))
"""


def test_closed_terminal_stops_it_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    leader, terminal = pty.openpty()
    driver = subprocess.Popen(
        # Its own controlling terminal, as in a shell.
        ["setsid", "--ctty", sys.executable, "-c", DRIVER, str(log)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
    )
    os.close(terminal)
    while not (log.exists() and "serve" in log.read_text()):
        time.sleep(0.01)
    os.close(leader)
    assert driver.wait(GUARD_SECONDS) == 0
    assert log.read_text().split() == [*BEGUN, *STOPPED]


@pytest.mark.parametrize(("host", "listens"), [(None, "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
def test_local_routers_listen_on_loopback(host: str | None, listens: str) -> None:
    config = ClusterConfig(pools={"code": Pool(model="/variants/code")}, routers=Routers(host=host))
    assert up_here.on_loopback(config).routers.host == listens


def test_local_ray_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(utils, "set_sigterm_handler", None)
    monkeypatch.setattr(ray, "init", lambda _, _node_ip_address, **__: given.append(_node_ip_address))
    up_here.start_ray(up_here.LOCAL_ADDRESS)
    assert [services.resolve_ip_for_localhost(address) for address in given] == given
    assert given[0].startswith("127.")
