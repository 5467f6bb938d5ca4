"""Where the processes that send the load come from: this machine, other machines, or a Ray cluster."""

import tempfile
from pathlib import Path

from triptych.loadtests.assignment import HarnessFailed
from triptych.loadtests.server_processes import LOOPBACK, Process


class Crew:
    """`size` processes of this machine. They join at `bind`:`port` (0: any), where the conductor listens."""

    def __init__(self, size: int, bind: str = LOOPBACK, port: int = 0) -> None:
        self.size, self.bind, self.port = size, bind, port
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-loadtest-")
        self._started: list[Process] = []

    def start(self, port: int) -> None:
        """Start the processes; the conductor listens on `port`."""
        for number, argv in enumerate(self.commands(port)):
            self._started.append(Process(argv, {}, Path(self._folder.name) / f"{number}.log"))

    def commands(self, port: int) -> list[list[str]]:
        """Arguments of Python for each process to start on this machine."""
        return [
            ["-m", "triptych.loadtests", "join", f"{self.bind}:{port}", "--name", f"process {number + 1}"]
            for number in range(self.size)
        ]

    def check(self) -> None:
        """Raise `HarnessFailed` if a process has ended."""
        for process in self._started:
            if (code := process.poll()) is not None:
                raise HarnessFailed(f"a process of the load tester ended with {code}:\n{process.tail()}")

    def stop(self) -> None:
        """End all processes."""
        for process in self._started:
            process.kill()
        self._folder.cleanup()


class RemoteCrew(Crew):
    """Processes that the user starts with `python -m loadtests join HOST:PORT`."""

    def commands(self, port: int) -> list[list[str]]:
        host = "THIS-MACHINE" if self.bind in ("0.0.0.0", "::") else self.bind
        print(f"waiting for {self.size} of: python -m loadtests join {host}:{port}", flush=True)
        return []


class RayCrew(Crew):
    """Tasks of the Ray cluster at `address`, with `cpus` of a node each."""

    def __init__(self, size: int, address: str, cpus: float, bind: str) -> None:
        super().__init__(size, bind)
        self._arguments = ["--ray", address, "--size", str(size), "--cpus", str(cpus)]

    def commands(self, port: int) -> list[list[str]]:
        return [["-m", "triptych.loadtests.ray_tasks", f"{self.bind}:{port}", *self._arguments]]
