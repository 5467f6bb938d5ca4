"""Fake children on free ports, and helpers that wait for them."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import eventually
from triptych.deploy.local.output import Output
from triptych.deploy.local.supervisor import Spec, Supervisor
from triptych.loadtests.server_processes import free_port

# Sets what `nvidia-smi` does.
Driver = Callable[[str], None]
FAKE_CHILD = Path(__file__).with_name("fake_child.py")


class Fakes:
    """Makes specs of fake children, and reads the events that they write."""

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


class Run:
    """A running supervisor, its output and the delays before its restarts."""

    def __init__(self, router: Spec, workers: list[Spec], **options: Any) -> None:
        self.text = io.StringIO()
        self.delays: list[float] = []
        self.all_ready = asyncio.Event()
        self.supervisor = Supervisor(
            router,
            workers,
            output=Output([router.name, *(spec.name for spec in workers)], self.text),
            stop_seconds=GUARD_SECONDS,
            on_ready=self.all_ready.set,
            sleep=self._sleep,
            **options,
        )
        self.task = asyncio.create_task(self.supervisor.run())

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0)

    async def ready(self) -> None:
        await eventually(lambda: self.all_ready.is_set() or self.task.done())
        assert self.all_ready.is_set(), self.text.getvalue()

    def pid(self, name: str) -> int:
        return self.supervisor.children[name].pid

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.task
