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


class Node:
    """One raylet, at `address`, of the cluster whose files are in `temp`."""

    def __init__(self, address: str, temp: Path, log: Path, *arguments: str) -> None:
        self.address = address
        self.temp = temp
        self.log = log
        self._arguments = arguments

    async def start(self) -> None:
        """Start it and wait until it is part of the cluster.

        Ray allows 30 s for this, which a loaded machine may exceed; then the node starts again.
        """
        for _ in range(START_TRIES):
            if await self._run_ray_start() == 0:
                return
            self.kill()
        raise AssertionError(self.log.read_text())

    async def _run_ray_start(self) -> int:
        common = ["--disable-usage-stats", "--object-store-memory", "100000000"]
        argv = ["-m", "ray.scripts.scripts", "start", "--node-ip-address", self.address, *common]
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, *self._arguments, stdout=log, stderr=log, cwd=ROOT, env=environment()
            )
            async with asyncio.timeout(START_SECONDS):
                return await process.wait()

    def kill(self) -> None:
        """Send SIGKILL to all of Ray's processes here and their children, as when a machine dies."""
        flags = (f"--node_ip_address={self.address}", f"--node-ip-address={self.address}")
        ours = [
            process
            for process in processes(str(self.temp))
            if any(flag in cmdline(process) for flag in flags)
        ]
        below = [child for process in ours for child in process.children(recursive=True)]
        for process in [*ours, *below]:
            with_luck(process.kill)


class RayCluster:
    """A head without CPUs and two nodes; `triptych ray` runs on it."""

    def __init__(self, folder: Path) -> None:
        # Paths of sockets must be short.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.folder = folder
        self.port = free_port("127.0.0.2", GCS_PORTS)
        self.address = f"127.0.0.2:{self.port}"
        self.router_port = free_port("127.0.0.2", OTHER_PORTS)
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
        node = Node(address, self.temp, self.folder / f"node-{address}.log", *arguments)
        await node.start()
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """Kill everything."""
        ray.shutdown()  # type: ignore[no-untyped-call]
        ours = processes(str(self.temp)) + processes(self.address)
        ours += [child for process in ours for child in process.children(recursive=True)]
        for process in ours:
            with_luck(process.kill)
        psutil.wait_procs(ours, 20)
        shutil.rmtree(self.temp, ignore_errors=True)

    def processes(self, title: str) -> list[psutil.Process]:
        """The cluster's processes with `title`; another Ray on this machine may have such ones, too."""
        below = [child for process in processes(str(self.temp)) for child in process.children()]
        return [process for process in below if title in cmdline(process)]

    def config(self, name: str, pools: dict[str, Any], **routers: Any) -> Path:
        """Write a configuration with nano models and small engines."""
        small = {
            "cpus": 0.5,
            "worker": {"batch_tokens": 1024, "kv_cache_gib": 0.5, "max_tokens": 2048},
            "env": SMALL,
            "start_seconds": START_SECONDS,
        }
        first = random.randrange(20_000, 31_000)
        document = {
            "pools": {pool: {**small, **its} for pool, its in pools.items()},
            # On a slow machine requests may wait long for an engine to start.
            "routers": {
                "port": self.router_port,
                "hold_seconds": START_SECONDS,
                "settings": {"request_timeout_seconds": START_SECONDS},
                **routers,
            },
            "worker_ports": getattr(self, "worker_ports", f"{first}-{first + 99}"),
        }
        self.worker_ports = document["worker_ports"]
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(document))
        return path

    async def deploy(self, command: str, config: Path, *arguments: str) -> tuple[int, str]:
        """Run `triptych ray COMMAND --config ...`; returns its exit code and its output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "triptych",
            "ray",
            command,
            "--config",
            str(config),
            *arguments,
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
        status: dict[str, Any] = json.loads(
            said[said.index("\n{\n") if "\n{\n" in said else said.index("{") :]
        )
        return status

    async def until(self, config: Path, holds: Callable[[Status], bool]) -> Status:
        """Wait until the status meets `holds`. It is read in this process, which is cheap."""
        began = time.monotonic()
        deadline = began + START_SECONDS
        parsed = read_config(config)
        while True:
            with suppress(ray.exceptions.RayError):
                status = await asyncio.to_thread(look, parsed)
                if status.directory and holds(status):
                    print(f"\n  {status.line}: after {time.monotonic() - began:.1f} s")
                    return status
                assert time.monotonic() < deadline, render(status) + self.logs()
            await asyncio.sleep(0.2)

    def logs(self) -> str:
        """The ends of the logs of the replicas."""
        found = sorted(
            self.temp.glob("session_*/logs/serve/replica_*.log"), key=lambda path: path.stat().st_mtime
        )
        return "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in found[-4:])


def processes(text: str) -> list[psutil.Process]:
    """The processes with `text` in their command line."""
    return [process for process in psutil.process_iter() if text in cmdline(process)]


def cmdline(process: psutil.Process) -> str:
    """The command line of a process, empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def workers_of(replica: psutil.Process) -> list[psutil.Process]:
    """The processes below a replica: the worker, its engine if it is a real one, the guard."""
    return replica.children(recursive=True)


def with_luck(kill: Callable[[], object]) -> None:
    """Call `kill`; the process may have ended already."""
    with suppress(psutil.NoSuchProcess):
        kill()


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
