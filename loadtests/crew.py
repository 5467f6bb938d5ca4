"""Where the processes come from that put the load on: this machine, others, or a Ray cluster."""

import tempfile
from pathlib import Path
from typing import Protocol

from loadtests.failed import HarnessFailed
from loadtests.processes import LOOPBACK, Process


class Crew(Protocol):
    """`size` processes that join at `bind`:`port` (0: any), where the conductor listens."""

    size: int
    bind: str
    port: int

    def start(self, port: int) -> None:
        """Have them join; the conductor listens on `port`."""

    def check(self) -> None:
        """Raise `HarnessFailed` when one has ended."""

    def stop(self) -> None:
        """End those that are still there."""


class LocalCrew:
    """Processes of this machine, which end with this one."""

    bind, port = LOOPBACK, 0

    def __init__(self, size: int) -> None:
        self.size = size
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-loadtest-")
        self._started: list[Process] = []

    def start(self, port: int) -> None:
        for number in range(self.size):
            argv = ["-m", "loadtests", "join", f"{LOOPBACK}:{port}", "--name", f"process {number + 1}"]
            self._started.append(Process(argv, {}, Path(self._folder.name) / f"{number}.log"))

    def check(self) -> None:
        for process in self._started:
            if (code := process.poll()) is not None:
                raise HarnessFailed(f"a process of the harness ended with {code}:\n{process.tail()}")

    def stop(self) -> None:
        for process in self._started:
            process.kill()
        self._folder.cleanup()


class RemoteCrew:
    """Processes that others start: `python -m loadtests join HOST:PORT`."""

    def __init__(self, size: int, bind: str, port: int) -> None:
        self.size, self.bind, self.port = size, bind, port

    def start(self, port: int) -> None:
        host = "THIS-MACHINE" if self.bind in ("*", "0.0.0.0", "::") else self.bind
        print(f"waiting for {self.size} of: python -m loadtests join {host}:{port}", flush=True)

    def check(self) -> None:
        """They are not ours to look after."""

    def stop(self) -> None:
        """They end when the conductor says so."""


class RayCrew(LocalCrew):
    """Tasks on a Ray cluster, each with `cpus` of a node; they join this machine at `bind`.

    A process of its own talks to Ray: locust makes the sockets of this one cooperative, and Ray's are not.
    """

    def __init__(self, size: int, address: str, cpus: float, bind: str) -> None:
        super().__init__(size)
        self.bind = bind
        self._arguments = ["--ray", address, "--size", str(size), "--cpus", str(cpus)]

    def start(self, port: int) -> None:
        argv = ["-m", "loadtests.ray_tasks", f"{self.bind}:{port}", *self._arguments]
        self._started = [Process(argv, {}, Path(self._folder.name) / "ray.log")]
