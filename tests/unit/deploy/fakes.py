"""Fake children on free ports, and waiting for what they do without sleeping blindly."""

import asyncio
import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.supervisor import Spec
from loadtests.processes import free_port

FAKE_CHILD = Path(__file__).with_name("fake_child.py")
PATIENCE = 20.0


class Fakes:
    """Makes specs of fake children, and reads what they noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events = folder / "events"
        self._events.touch()

    def spec(self, name: str, gate: str | None = None, **options: Any) -> Spec:
        port = free_port()
        options |= {"name": name, "port": port, "events": str(self._events)}
        argv = (sys.executable, "-I", "-S", str(FAKE_CHILD), json.dumps(options))
        return Spec(name=name, argv=argv, env=dict(os.environ), host="127.0.0.1", port=port, gate=gate)

    def events(self) -> list[str]:
        return self._events.read_text().splitlines()


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; the test fails when that takes too long."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def wait_gone(pids: list[int]) -> list[int]:
    """Wait until the processes have ended; returns those that have not."""
    deadline = time.monotonic() + PATIENCE
    left = []
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                left.append(pid)
        finally:
            os.close(pidfd)
    return left
