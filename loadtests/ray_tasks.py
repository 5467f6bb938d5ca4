"""Sends load from a Ray cluster: one task for each process, spread over the nodes.

    python -m loadtests.ray_tasks HOST:PORT --size 8 [--ray auto] [--cpus 1]

`python -m loadtests run --ray` starts it and listens at HOST:PORT. Each task runs the process as a child,
because locust would patch the sockets of Ray's own process. The nodes need this project with its extra
`loadtest`.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray

from triptych.loadtests.server_processes import Process


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address", metavar="HOST:PORT", help="where the conductor listens")
    parser.add_argument("--size", type=int, required=True, help="number of processes")
    parser.add_argument("--ray", default="auto", help="address of the cluster (default: %(default)s)")
    parser.add_argument(
        "--cpus", type=float, default=1, help="CPUs of a node for each (default: %(default)s)"
    )
    options = parser.parse_args()
    ray.init(address=options.ray, log_to_driver=False, logging_level=logging.WARNING)
    remote: Any = ray.remote(join)
    task = remote.options(num_cpus=options.cpus, scheduling_strategy="SPREAD", max_retries=0)
    tasks = [task.remote(options.address, f"Ray task {number + 1}") for number in range(options.size)]
    codes: list[tuple[int, str]] = ray.get(tasks)
    for code, log in codes:
        if code:
            print(log, file=sys.stderr)
    return max(code for code, _ in codes)


def join(address: str, name: str) -> tuple[int, str]:
    """Run one process until its run ends; return its exit code and the end of its output."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "triptych.loadtests", "join", address, "--name", name]
        process = Process(command, {}, Path(folder) / "log")
        try:
            return process.wait(timeout=None), process.tail()
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
