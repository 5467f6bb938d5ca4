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
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from triptych.deploy.common.child_process import ChildProcess
from triptych.deploy.common.environments import settings_env, with_own_key
from triptych.deploy.common.readiness import is_live, reachable
from triptych.deploy.ray.book import Groups, RouterReport
from triptych.deploy.ray.config import Routers
from triptych.deploy.ray.directory import DirectoryClient, DirectoryLost, node_address, repeat, shared_token
from triptych.deploy.ray.pressure import Pressure
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.host_ports import address_of, why_taken

log = logging.getLogger("ray.serve")

LOOK_SECONDS = 0.5
ROUTER_LOOK_SECONDS = 0.25
START_SECONDS = 60.0
LIVE_SECONDS = 5.0
ROUTER = (sys.executable, "-m", "triptych.router")


class NodeRouter:
    """The replica. Twice a second it asks the directory for the workers and writes them to a file, which the
    router reads. While the directory does not answer, the file stays as it is."""

    # Serve awaits it, which the type checker does not expect.
    async def __init__(  # type: ignore[misc]
        self, name: str, routers: dict[str, Any], pools: dict[PoolName, bool]
    ) -> None:
        """`routers` are the settings; `pools` says for each pool whether it may have no replicas."""
        self._started = False
        self._directory = DirectoryClient(name)
        parsed = Routers.model_validate(routers)
        host = parsed.host or node_address()
        self._host, self._port = reachable(host), parsed.port
        self._stop_seconds = parsed.drain_seconds + 5
        self._url = f"http://{address_of(self._host, self._port)}"
        self._id = serve.get_replica_context().replica_id.unique_id
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-router-")
        self._file = Path(self._folder.name) / "workers.json"
        self._pools = pools
        own = {
            "ROUTER_HOST": host,
            "ROUTER_PORT": str(parsed.port),
            "ROUTER_DISCOVERY": str(self._file),
            "ROUTER_DISCOVERY_SECONDS": str(ROUTER_LOOK_SECONDS),
            "ROUTER_HOLD_SECONDS": str(parsed.hold_seconds),
            "ROUTER_WORKER_TOKEN": os.environ.get("WORKER_TOKEN") or shared_token(name),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("WORKER_")}
        given = settings_env("ROUTER_", parsed.settings) | parsed.env
        env, key = with_own_key({**inherited, **given, **own}, "deploy.ray")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=5, trust_env=False)
        await _until_free(host, parsed.port)
        self._process = ChildProcess(ROUTER, env, death_signal=False)
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
            # Its guard ends the router.
            return
        await self._process.stop(self._stop_seconds)
        self._following.cancel()
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("leave", self._id)
        await self._client.aclose()
        self._folder.cleanup()

    async def _is_live(self) -> bool:
        return bool(await is_live(self._host, self._port, LIVE_SECONDS))

    async def _follow(self) -> None:
        page = (await self._client.get(f"{self._url}/metrics")).raise_for_status().text
        report = read_metrics(page, self._id, self._url)
        if (groups := await self._directory.ask("report", report)) is not None:
            write_workers(self._file, groups, self._pools, self._id)


async def _until_free(host: str, port: int) -> None:
    """Wait until the router before this one has released the port. Raises `RuntimeError`."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while why_taken(host, port):  # noqa: ASYNC110 (no event says that a port is free)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise RuntimeError(f"port {port} of {host} is taken; choose another with routers.port") from None


def write_workers(path: Path, groups: Groups, pools: Mapping[PoolName, bool], router: str) -> None:
    """Write the file from which a router reads the workers, unless it is there already.

    `pools` are all pools, and whether each may have no replicas: one without any gets an empty group.
    """
    named = {group["labels"]["task"] for group in groups}
    for name, may_be_empty in pools.items():
        if name not in named:
            labels = {"task": name, "min_replicas": "0" if may_be_empty else "1"}
            groups = [*groups, {"targets": [], "labels": labels}]
    # The first pool's model is the default, so the order is the configuration's.
    order = {name: number for number, name in enumerate(pools)}
    groups = sorted(groups, key=lambda group: order.get(group["labels"]["task"], len(order)))
    # In another order for each router, so that they do not all start with the same worker.
    for group in groups:
        random.Random(router).shuffle(group["targets"])
    text = json.dumps(groups)
    # An old file in /tmp may be cleared away.
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def read_metrics(page: str, id: str, url: str) -> RouterReport:
    """The report of a router, from its metrics. A worker serves if all processes of the router use it."""
    sums: defaultdict[str, defaultdict[Any, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name, labels = sample.name, sample.labels
            if name == "triptych_router_replica_state":
                sums["known"][labels["replica"]] += sample.value
                sums[labels["state"]][labels["replica"]] += sample.value
            else:
                sums[name][labels.get("pool")] += sample.value
    known, ready = sums["known"], sums["ready"]
    processes = sums["triptych_router_processes"][None] or 1
    waiting, running = sums["triptych_router_queue_tokens"], sums["triptych_router_replica_tokens_in_flight"]
    return RouterReport(
        id,
        url,
        known=frozenset(address for address, count in known.items() if count),
        serving=frozenset(address for address, count in ready.items() if count >= processes),
        pressures={pool: Pressure(waiting[pool], running[pool]) for pool in {*waiting, *running}},
        arrived=dict(sums["triptych_router_requested_tokens_total"]),
    )
