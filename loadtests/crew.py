"""Where the processes that send the load come from: this machine, other machines, or a Ray cluster."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
from typing import Any

from triptych.loadtests.assignment import HarnessFailed
from triptych.loadtests.join import join
from triptych.workers.shared.parent_death import die_with_parent


class Crew:
    """`size` processes that the user starts with `triptych loadtest join HOST:PORT`.

    They join at `bind`:`port` (0: any), where the conductor listens, and end with their connections to it.
    """

    def __init__(self, size: int, bind: str, port: int = 0) -> None:
        self.size, self.bind, self.port = size, bind, port

    def start(self, port: int) -> None:
        """Start the processes; the conductor listens on `port`."""
        host = "THIS-MACHINE" if self.bind in ("0.0.0.0", "[::]") else self.bind
        print(f"waiting for {self.size} of: triptych loadtest join {host}:{port}", flush=True)

    def check(self) -> None:
        """Raise `HarnessFailed` if a process that was started here has ended."""


class LocalCrew(Crew):
    """Processes of this machine, started here."""

    def start(self, port: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        names = [f"process {number + 1}" for number in range(self.size)]
        self._started = [
            spawn.Process(target=_work, args=(os.getpid(), self.bind, port, name), name=name, daemon=True)
            for name in names
        ]
        # Ctrl-C reaches all processes of a terminal, and the conductor decides what ends. They inherit this.
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for process in self._started:
                process.start()
        finally:
            signal.signal(signal.SIGINT, ours)

    def check(self) -> None:
        for process in self._started:
            if process.exitcode is not None:
                raise HarnessFailed(f"{process.name} of the load tester ended with {process.exitcode}")


class RayCrew(Crew):
    """Tasks of the Ray cluster at `address`, spread over the nodes, with `cpus` of a node each.

    The nodes need this project with its extra `loadtest`.
    """

    def __init__(self, size: int, address: str, cpus: float, bind: str) -> None:
        super().__init__(size, bind)
        self._address, self._cpus = address, cpus

    def start(self, port: int) -> None:
        import ray

        ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        remote: Any = ray.remote(join)
        task = remote.options(num_cpus=self._cpus, scheduling_strategy="SPREAD", max_retries=0)
        self._tasks: list[Any] = [
            task.remote(self.bind, port, f"Ray task {number + 1}") for number in range(self.size)
        ]

    def check(self) -> None:
        import ray

        ended, _ = ray.wait(self._tasks, num_returns=1, timeout=0)
        if ended:
            try:
                ray.get(ended[0])
            except ray.exceptions.RayError as error:
                raise HarnessFailed(f"a Ray task failed: {error}") from None
            raise HarnessFailed("a Ray task ended")


def crew_of(options: argparse.Namespace) -> Crew:
    """The crew that the command line asks for."""
    if options.join:
        return Crew(options.processes, *options.join)
    if options.ray:
        return RayCrew(options.processes, options.ray, options.ray_cpus, options.bind)
    return LocalCrew(options.processes, "127.0.0.1")


def _work(conductor: int, host: str, port: int, name: str) -> None:
    # It may be gone before there is a connection to it.
    die_with_parent(conductor)
    try:
        join(host, port, name)
    except HarnessFailed as error:
        sys.exit(str(error))
