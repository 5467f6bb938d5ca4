"""A Ray cluster of several raylets on loopback addresses, and `triptych ray` on it."""

import asyncio
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.exceptions
from ray._raylet import Config

from triptych.deploy.ray.config import read_config
from triptych.deploy.ray.directory import NAMESPACE
from triptych.deploy.ray.running import look
from triptych.deploy.ray.status import Status, render
from triptych.loadtests.server_processes import free_port

ROOT = Path(__file__).parents[2]
# Only a hang takes so long.
START_SECONDS = 900
START_TRIES = 5
# Below the ports that Ray chooses from (10002 to 19999) and those of the kernel.
GCS_PORTS = range(6000, 9900)
OTHER_PORTS = range(20_000, 32_000)
SMALL = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
# A stand-in for vLLM, whose engines take half a minute to start; `make test-cluster` has REAL_ENGINES.
STAND_IN = {"PYTHONPATH": f"{ROOT / 'tests' / 'fakes' / 'engine'}:{ROOT}"}
QUICK = SMALL if os.environ.get("REAL_ENGINES") else STAND_IN
# Every call needs the token, as on a real cluster.
AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@dataclass
class Node:
    """One raylet, at `address`, of the cluster whose files are in `temp`."""

    address: str
    temp: Path
    log: Path
    arguments: tuple[str, ...]

    async def start(self) -> None:
        """Start it and wait until it is part of the cluster.

        Ray allows 30 s for this, which a loaded machine may exceed; then the node starts again.
        """
        argv = ["-m", "ray.scripts.scripts", "start", "--node-ip-address", self.address, *self.arguments]
        argv += ["--disable-usage-stats", "--object-store-memory", "100000000"]
        for _ in range(START_TRIES):
            # Not to a pipe, which Ray's processes would keep open.
            with self.log.open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *argv, stdout=log, stderr=log, cwd=ROOT, env=environment()
                )
            async with asyncio.timeout(START_SECONDS):
                if await process.wait() == 0:
                    return
            self.kill()
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """Send SIGKILL to all of Ray's processes here and their children, as when a machine dies."""
        for flag in ("--node_ip_address", "--node-ip-address"):
            kill_family(running(str(self.temp), f"{flag}={self.address}"))


class RayCluster:
    """A head without CPUs and two nodes; `triptych ray` runs on it."""

    def __init__(self, folder: Path) -> None:
        # Paths of sockets must be short.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.folder = folder
        self.port = free_port("127.0.0.2", GCS_PORTS)
        self.address = f"127.0.0.2:{self.port}"
        self.router_port = free_port("127.0.0.2", OTHER_PORTS)
        first = random.randrange(20_000, 31_000)
        self.worker_ports = f"{first}-{first + 99}"
        self.nodes: list[Node] = []

    async def start(self) -> None:
        """Start the head and two nodes, and connect this process to them."""
        head = ["--head", "--port", str(self.port), "--num-cpus", "0", "--include-dashboard", "false"]
        await self._add("127.0.0.2", *head, "--temp-dir", str(self.temp))
        await self.add("127.0.0.3")
        await self.add("127.0.0.4")
        os.environ.update(AUTHENTICATION)
        # Ray read its settings when it was imported.
        Config.initialize("")
        ray.init(self.address, namespace=NAMESPACE, log_to_driver=False, logging_level="warning")

    async def add(self, address: str) -> Node:
        """Start one more node."""
        return await self._add(address, "--address", self.address, "--num-cpus", "2")

    async def _add(self, address: str, *arguments: str) -> Node:
        node = Node(address, self.temp, self.folder / f"node-{address}.log", arguments)
        await node.start()
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """Kill everything."""
        ray.shutdown()  # type: ignore[no-untyped-call]
        ended = kill_family(running(str(self.temp)) + running(self.address))
        psutil.wait_procs(ended, 20)
        shutil.rmtree(self.temp, ignore_errors=True)

    def processes(self, title: str) -> list[psutil.Process]:
        """The cluster's processes with `title`; another Ray on this machine may have such ones, too."""
        raylets = {process.pid for process in running(str(self.temp))}
        return [process for process in running(title) if process.info["ppid"] in raylets]

    def config(self, name: str, pools: dict[str, Any], **routers: Any) -> Path:
        """Write a configuration with nano models and small engines."""
        small = {
            "cpus": 0.5,
            "worker": {"batch_tokens": 1024, "kv_cache_gib": 0.5, "max_tokens": 2048},
            "env": SMALL,
            "start_seconds": START_SECONDS,
        }
        document = {
            "pools": {pool: {**small, **its} for pool, its in pools.items()},
            # On a slow machine requests may wait long for an engine to start.
            "routers": {
                "port": self.router_port,
                "hold_seconds": START_SECONDS,
                "settings": {"request_timeout_seconds": START_SECONDS},
                **routers,
            },
            "worker_ports": self.worker_ports,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(document))
        return path

    async def deploy(self, command: str, config: Path, *arguments: str) -> tuple[int, str]:
        """Run `triptych ray COMMAND --config ...`; returns its exit code and its output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "triptych", "ray", command, "--config", str(config), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=ROOT,
            env=environment() | {"RAY_ADDRESS": self.address},
        )
        async with asyncio.timeout(START_SECONDS):
            said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def up(self, config: Path) -> None:
        """Deploy, and wait until everything runs."""
        code, said = await self.deploy("up", config, "--timeout", str(START_SECONDS))
        assert code == 0, said + self.logs()

    async def status(self, config: Path) -> dict[str, Any]:
        """The output of `status --json`."""
        _, said = await self.deploy("status", config, "--json")
        status: dict[str, Any] = json.loads(said[f"\n{said}".index("\n{\n") :])
        return status

    async def until(self, config: Path, holds: Callable[[Status], bool]) -> Status:
        """Wait until the status meets `holds`. It is read in this process, which is cheap."""
        deadline = time.monotonic() + START_SECONDS
        parsed = read_config(config)
        while True:
            with suppress(ray.exceptions.RayError):
                status = await asyncio.to_thread(look, parsed)
                if status.directory and holds(status):
                    return status
                assert time.monotonic() < deadline, render(status) + self.logs()
            await asyncio.sleep(0.2)

    def logs(self) -> str:
        """The ends of the logs of the replicas."""
        found = sorted(
            self.temp.glob("session_*/logs/serve/replica_*.log"), key=lambda path: path.stat().st_mtime
        )
        return "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in found[-4:])


def running(*texts: str) -> list[psutil.Process]:
    """The processes with all of `texts` in their command line."""
    found = psutil.process_iter(["cmdline", "ppid"])
    return [its for its in found if all(text in " ".join(its.info["cmdline"] or ()) for text in texts)]


def kill_family(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Send SIGKILL to processes and all below them, which it returns."""
    family = [*processes, *(child for its in processes for child in its.children(recursive=True))]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return family


def environment() -> dict[str, str]:
    """This environment without settings of a deployment."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ROUTER_", "WORKER_", "DEPLOY_", "RAY_"))
    }
    # Ray notices a dead node quickly, nodes outlive their head, and no worker starts before it is needed.
    quick = {
        "RAY_prestart_worker_first_driver": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "4",
    }
    return kept | quick | AUTHENTICATION | {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}


@contextmanager
def cluster_of(folder: Path) -> Iterator[RayCluster]:
    """A cluster that is not started yet. It is killed at the end."""
    cluster = RayCluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
