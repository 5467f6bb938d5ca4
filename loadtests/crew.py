"""Where the processes that send the load come from: this machine, other machines, or a Ray cluster."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from triptych.loadtests.assignment import HarnessFailed
from triptych.loadtests.join import join
from triptych.loadtests.server_processes import LOOPBACK, Process


class Crew:
    """`size` processes of this machine. They join at `bind`:`port` (0: any), where the conductor listens."""

    def __init__(self, size: int, bind: str = LOOPBACK, port: int = 0) -> None:
        self.size, self.bind, self.port = size, bind, port
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-loadtest-")
        self._started: list[Process] = []

    def start(self, port: int) -> None:
        """Start the processes; the conductor listens on `port`."""
        for number in range(self.size):
            argv = ["-m", "triptych.loadtests", "join", f"{self.bind}:{port}"]
            log = Path(self._folder.name) / f"{number}.log"
            self._started.append(Process([*argv, "--name", f"process {number + 1}"], {}, log))

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
    """Processes that the user starts with `triptych loadtest join HOST:PORT`."""

    def start(self, port: int) -> None:
        host = "THIS-MACHINE" if self.bind in ("0.0.0.0", "[::]") else self.bind
        print(f"waiting for {self.size} of: triptych loadtest join {host}:{port}", flush=True)


class RayCrew(Crew):
    """Tasks of the Ray cluster at `address`, spread over the nodes, with `cpus` of a node each.

    The nodes need this project with its extra `loadtest`.
    """

    def __init__(self, size: int, address: str, cpus: float, bind: str) -> None:
        super().__init__(size, bind)
        self._address, self._cpus = address, cpus
        self._tasks: list[Any] = []

    def start(self, port: int) -> None:
        import ray

        ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        remote: Any = ray.remote(join)
        task = remote.options(num_cpus=self._cpus, scheduling_strategy="SPREAD", max_retries=0)
        self._tasks = [task.remote(self.bind, port, f"Ray task {number + 1}") for number in range(self.size)]

    def check(self) -> None:
        import ray

        ended, _ = ray.wait(self._tasks, num_returns=1, timeout=0)
        if ended:
            try:
                ray.get(ended[0])
            except ray.exceptions.RayError as error:
                raise HarnessFailed(f"a Ray task failed: {error}") from None
            raise HarnessFailed("a Ray task ended")

    def stop(self) -> None:
        import ray

        # Each ends by itself when the conductor has closed.
        ray.wait(self._tasks, num_returns=len(self._tasks), timeout=10)
        ray.shutdown()
        super().stop()
