"""A Ray Serve replica that runs one router and tells it where the workers listen."""

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from deploy.common.child_process import ChildProcess, StartFailed
from deploy.common.process_guard import Guard
from deploy.common.readiness import is_live, reachable, why_taken
from deploy.ray.book import Groups, RouterReport
from deploy.ray.config import Routers, environment
from deploy.ray.directory import DirectoryClient, DirectoryLost, node_address, repeat, shared_token
from deploy.ray.pressure import Pressure
from router.access.keys import make_key
from workers.shared.contract import PoolName

log = logging.getLogger("ray.serve")

LOOK_SECONDS = 0.5
ROUTER_LOOK_SECONDS = 0.25
START_SECONDS = 60.0
LIVE_SECONDS = 5.0
ROUTER = (sys.executable, "-m", "router")


class NodeRouter:
    """The replica. Twice a second it asks the directory for the workers and writes them to a file, which the
    router reads. While the directory does not answer, the file stays as it is."""

    # Serve awaits it, which the type checker does not expect.
    async def __init__(  # type: ignore[misc]
        self, name: str, settings: dict[str, Any], pools: dict[PoolName, bool]
    ) -> None:
        """`settings` are those of `Routers`; `pools` says for each pool whether it may have no replicas."""
        self._started = False
        self._directory = DirectoryClient(name)
        self._routers = routers = Routers.model_validate(settings)
        host = routers.host or node_address()
        self._host, self._port = reachable(host), routers.port
        self._url = f"http://{self._host}:{self._port}"
        self._id = serve.get_replica_context().replica_id.unique_id
        self._node = ray.get_runtime_context().get_node_id()
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-router-")
        self._file = WorkersFile(Path(self._folder.name) / "workers.json", self._id, pools)
        own = {
            "ROUTER_HOST": host,
            "ROUTER_PORT": str(routers.port),
            "ROUTER_DISCOVERY": str(self._file.path),
            "ROUTER_DISCOVERY_SECONDS": str(ROUTER_LOOK_SECONDS),
            "ROUTER_HOLD_SECONDS": str(routers.hold_seconds),
            "ROUTER_WORKER_TOKEN": os.environ.get("WORKER_TOKEN") or shared_token(name),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("WORKER_")}
        given = environment("ROUTER_", routers.settings) | routers.env
        env, headers = with_own_key({**inherited, **given, **own})
        self._client = httpx.AsyncClient(headers=headers, timeout=5, trust_env=False)
        await _until_free(host, routers.port)
        self._process = ChildProcess(ROUTER, env, Guard(), death_signal=False)
        await self._process.until(self._is_live, START_SECONDS, f"the router on {host}")
        self._following = asyncio.create_task(repeat(self._follow, LOOK_SECONDS))
        self._started = True

    async def check_health(self) -> None:
        """Called by Serve every few seconds; it replaces the replica after three errors in a row."""
        if (code := self._process.code) is not None:
            raise RuntimeError(f"the router has ended with {code}")
        if not await self._is_live():
            raise RuntimeError(f"the router at {self._url} does not answer /live")

    async def __del__(self) -> None:
        """Called by Serve to stop the replica. The router finishes the requests that it has accepted."""
        if not self._started:
            # The guard ends the router.
            return
        notice, drain = self._routers.drain_times
        await self._process.stop(notice + drain + 5)
        self._following.cancel()
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("forget_router", self._id)
        await self._client.aclose()
        self._folder.cleanup()

    async def _is_live(self) -> bool:
        return bool(await is_live(self._host, self._port, LIVE_SECONDS))

    async def _follow(self) -> None:
        page = (await self._client.get(f"{self._url}/metrics")).raise_for_status().text
        report = RouterReport(self._id, self._node, self._url, *read_metrics(page))
        if (groups := await self._directory.ask("report", report)) is not None:
            self._file.write(groups)


class WorkersFile:
    """The file from which a router reads the workers."""

    def __init__(self, path: Path, router: str, pools: Mapping[PoolName, bool]) -> None:
        """`pools` are all pools, and whether each may have no replicas."""
        self.path = path
        self._router = router
        self._pools = pools
        self._written: Groups | None = None

    def write(self, groups: Groups) -> None:
        """Write the workers, and an empty group for each pool without any."""
        named = {group["labels"]["task"] for group in groups}
        groups = groups + [
            {"targets": [], "labels": {"task": name, "min_replicas": "0" if may_be_empty else "1"}}
            for name, may_be_empty in self._pools.items()
            if name not in named
        ]
        # In another order for each router, so that they do not all start with the same worker.
        for group in groups:
            random.Random(self._router).shuffle(group["targets"])
        # An old file in /tmp may be cleared away.
        if groups == self._written and self.path.exists():
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(groups))
        part.replace(self.path)
        self._written = groups


async def _until_free(host: str, port: int) -> None:
    """Wait until the previous router has released the port. Raises `StartFailed`."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while why_taken(host, port):  # noqa: ASYNC110 (no event says that a port is free)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise StartFailed(f"port {port} of {host} is taken; choose another with routers.port") from None


def with_own_key(env: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """A router's environment and the headers for asking its metrics, which takes a key if it has keys.

    Only hashes of the operator's keys are known, so it adds a key of its own.
    """
    keys = json.loads(env.get("ROUTER_API_KEYS") or "[]")
    # A key would close a router that has none.
    if not keys and not env.get("ROUTER_API_KEYS_FILE"):
        return env, {}
    key, entry = make_key("deploy.ray")
    return {**env, "ROUTER_API_KEYS": json.dumps([*keys, entry])}, {"Authorization": f"Bearer {key}"}


Metrics = tuple[frozenset[str], frozenset[str], dict[PoolName, Pressure], dict[PoolName, float]]


def read_metrics(page: str) -> Metrics:
    """Read a router's metrics: the workers that it knows, those that all its processes send work to, the load
    of each pool, and all tokens that ever arrived for each pool."""
    processes = 1.0
    known: defaultdict[str, float] = defaultdict(float)
    ready: defaultdict[str, float] = defaultdict(float)
    waiting: defaultdict[PoolName, float] = defaultdict(float)
    running: defaultdict[PoolName, float] = defaultdict(float)
    arrived: defaultdict[PoolName, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            pool: Any = labels.get("pool")
            match sample.name:
                case "triptych_router_processes":
                    processes = value
                case "triptych_router_replica_state":
                    known[labels["replica"]] += value
                    ready[labels["replica"]] += value if labels["state"] == "ready" else 0
                case "triptych_router_queue_tokens":
                    waiting[pool] += value
                case "triptych_router_replica_tokens_in_flight":
                    running[pool] += value
                case "triptych_router_requested_tokens_total":
                    arrived[pool] += value
    addresses = frozenset(address for address, count in known.items() if count)
    serving = frozenset(address for address in addresses if ready[address] >= processes)
    pressures = {pool: Pressure(waiting[pool], running[pool]) for pool in {*waiting, *running}}
    return addresses, serving, pressures, dict(arrived)
