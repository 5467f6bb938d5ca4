"""A Ray cluster of several raylets on loopback, each at an address of its own, and the command line on it."""

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

from deploy.ray.config import read_config
from deploy.ray.directory import NAMESPACE
from deploy.ray.running import look
from deploy.ray.status import Status, render
from loadtests.processes import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 240
# Below what Ray itself chooses from (10002 to 19999), and out of the kernel's own range.
GCS_PORTS = range(6000, 9900)
OTHER_PORTS = range(20_000, 32_000)
# As on a real cluster: whoever has not the token may ask for nothing.
AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Node:
    """One raylet, at `address`."""

    def __init__(self, address: str, log: Path, *arguments: str) -> None:
        self.address = address
        self.log = log
        self._arguments = arguments

    async def start(self) -> None:
        """Start it and wait until it is part of the cluster."""
        common = ["--disable-usage-stats", "--object-store-memory", "100000000"]
        argv = ["-m", "ray.scripts.scripts", "start", "--node-ip-address", self.address, *common]
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, *self._arguments, stdout=log, stderr=log, cwd=ROOT, env=environment()
            )
            async with asyncio.timeout(START_SECONDS):
                code = await process.wait()
        assert code == 0, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL to all that Ray runs here and to everything below it at once, as when a machine dies."""
        flags = (f"--node_ip_address={self.address}", f"--node-ip-address={self.address}")
        ours = [
            process for process in psutil.process_iter() if any(flag in cmdline(process) for flag in flags)
        ]
        below = [child for process in ours for child in process.children(recursive=True)]
        for process in [*ours, *below]:
            with_luck(process.kill)


class RayCluster:
    """A head without CPUs and two nodes; `python -m deploy ray` runs on it."""

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
        # Ray has read its settings when it was imported.
        Config.initialize("")
        ray.init(self.address, namespace=NAMESPACE, log_to_driver=False, logging_level="warning")

    async def add(self, address: str) -> Node:
        """Start one more node."""
        return await self._add(address, "--address", self.address, "--num-cpus", "2")

    async def _add(self, address: str, *arguments: str) -> Node:
        node = Node(address, self.folder / f"node-{address}.log", *arguments)
        await node.start()
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """End all of it."""
        ray.shutdown()  # type: ignore[no-untyped-call]
        ours = [
            process
            for process in processes("")
            if str(self.temp) in cmdline(process) or self.address in cmdline(process)
        ]
        ours += [child for process in ours for child in process.children(recursive=True)]
        for process in ours:
            with_luck(process.kill)
        psutil.wait_procs(ours, 20)
        shutil.rmtree(self.temp, ignore_errors=True)

    def config(self, name: str, pools: dict[str, Any], **routers: Any) -> Path:
        """A configuration file of nano models with as little as an engine needs."""
        small = {
            "cpus": 0.5,
            "worker": {"batch_tokens": 1024, "kv_cache_gib": 0.5, "max_tokens": 2048},
            "env": {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            "start_seconds": START_SECONDS,
        }
        first = random.randrange(20_000, 31_000)
        document = {
            "pools": {pool: {**small, **its} for pool, its in pools.items()},
            # A slow machine may take a while to start an engine that work waits for.
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
        """`python -m deploy ray COMMAND --config ...`: its exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "deploy",
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
        async with asyncio.timeout(400):
            said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def up(self, config: Path) -> None:
        """Deploy, and wait until all of it runs."""
        code, said = await self.deploy("up", config, "--timeout", "300")
        assert code == 0, said + self.logs()

    async def status(self, config: Path) -> dict[str, Any]:
        """What `status --json` says."""
        _, said = await self.deploy("status", config, "--json")
        status: dict[str, Any] = json.loads(
            said[said.index("\n{\n") if "\n{\n" in said else said.index("{") :]
        )
        return status

    async def until(self, config: Path, holds: Callable[[Status], bool], seconds: float = 240) -> Status:
        """Wait until the status is as `holds` says; looked at from this process, which costs little."""
        began = time.monotonic()
        deadline = began + seconds
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
        """The ends of what the replicas wrote."""
        found = sorted(
            self.temp.glob("session_*/logs/serve/replica_*.log"), key=lambda path: path.stat().st_mtime
        )
        return "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in found[-4:])


def processes(title: str) -> list[psutil.Process]:
    """The processes whose command line has `title` in it."""
    return [process for process in psutil.process_iter() if title in cmdline(process)]


def cmdline(process: psutil.Process) -> str:
    """A process's command line, nothing for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def workers_of(replica: psutil.Process) -> list[psutil.Process]:
    """What runs below a replica: the worker, its engine, the guard."""
    return replica.children(recursive=True)


def with_luck(kill: Callable[[], object]) -> None:
    """Call `kill`, unless the process has ended already."""
    with suppress(psutil.NoSuchProcess):
        kill()


def environment() -> dict[str, str]:
    """Ours, without settings of a deployment."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ROUTER_", "WORKER_", "DEPLOY_", "RAY_"))
    }
    # No death of a node may take long to be noticed, and the nodes are to outlive their head.
    quick = {
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "4",
    }
    return kept | quick | AUTHENTICATION | {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}


@contextmanager
def cluster_of(folder: Path) -> Iterator[RayCluster]:
    """A cluster, not started yet, ended at the end whatever happens."""
    cluster = RayCluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
