"""A replica of the routers: a Ray Serve replica that runs a router and tells it where the workers are."""

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from deploy.local.readiness import reachable, why_taken
from deploy.ray.book import Groups, RouterReport
from deploy.ray.config import Routers, environment
from deploy.ray.directory import DirectoryClient, DirectoryLost, node_address, shared_token
from deploy.ray.pressure import Pressure
from deploy.ray.process import ChildProcess
from router.access.keys import make_key
from workers.shared.contract import PoolName

log = logging.getLogger("ray.serve")

LOOK_SECONDS = 0.5
ROUTER_LOOK_SECONDS = 0.25
START_SECONDS = 60.0


class RouterFailed(RuntimeError):
    """A router cannot start; its own log says why."""


class NodeRouter:
    """The replica. The directory is asked twice a second and what it says is written to a file, which the
    router reads: when nobody answers, the file stays as it is, and so does the router."""

    # Serve awaits it, which the type checker does not expect.
    async def __init__(  # type: ignore[misc]
        self, name: str, settings: dict[str, Any], pools: dict[PoolName, bool]
    ) -> None:
        """`settings`: those of `Routers`; `pools`: all pools, and whether each may have no replica at all."""
        self._name, self._pools = name, pools
        self._directory = DirectoryClient(name)
        self._routers = routers = Routers.model_validate(settings)
        host = routers.host or node_address()
        self._url = f"http://{reachable(host)}:{routers.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-router-")
        self._file = Path(self._folder.name) / "workers.json"
        self._written: Groups | None = None
        self._id = serve.get_replica_context().replica_id.unique_id
        self._node = ray.get_runtime_context().get_node_id()
        env, headers = with_own_key(self._environment(host, dict(os.environ)))
        self._client = httpx.AsyncClient(headers=headers, timeout=5, trust_env=False)
        await self._until_free(host, routers.port)
        self._process = ChildProcess((sys.executable, "-m", "router"), env)
        try:
            await self._until_live()
        except BaseException:
            await self._process.stop(0)
            raise
        self._following = asyncio.create_task(self._follow())

    async def check_health(self) -> None:
        """Called by Serve every few seconds."""
        if (code := self._process.ended) is not None:
            raise RuntimeError(f"the router has ended with {code}")
        if self._following.done():
            raise RuntimeError("the router is not told of workers any more; the replica's log says why")
        (await self._client.get(f"{self._url}/live")).raise_for_status()

    async def __del__(self) -> None:
        """Called by Serve before the replica is stopped: what the router has accepted, it finishes."""
        notice, drain = self._routers.drain_times
        await self._process.stop(notice + drain + 5)
        self._following.cancel()
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("forget_router", self._id)
        await self._client.aclose()
        self._folder.cleanup()

    def _environment(self, host: str, environ: dict[str, str]) -> dict[str, str]:
        routers = self._routers
        own = {
            "ROUTER_HOST": host,
            "ROUTER_PORT": str(routers.port),
            "ROUTER_DISCOVERY": str(self._file),
            "ROUTER_DISCOVERY_SECONDS": str(ROUTER_LOOK_SECONDS),
            "ROUTER_HOLD_SECONDS": str(routers.hold_seconds),
            "ROUTER_WORKER_TOKEN": os.environ.get("WORKER_TOKEN") or shared_token(self._name),
        }
        inherited = {key: value for key, value in environ.items() if not key.startswith("WORKER_")}
        return {**inherited, **environment("ROUTER_", routers.settings), **routers.env, **own}

    async def _until_free(self, host: str, port: int) -> None:
        """Wait until a router before us has let go of the port."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while why_taken(host, port):  # noqa: ASYNC110 (a port says nothing when it is free)
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise RouterFailed(f"port {port} of {host} is taken; choose another with routers.port") from None

    async def _until_live(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    if (code := self._process.ended) is not None:
                        raise RouterFailed(f"the router ended with {code}; the replica's log says why")
                    with contextlib.suppress(httpx.TransportError):
                        if (await self._client.get(f"{self._url}/live")).status_code == 200:
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise RouterFailed(f"the router does not answer after {START_SECONDS:g} s") from None

    async def _follow(self) -> None:
        trouble = ""
        while True:
            try:
                groups = await self._directory.ask("report", await self._report())
                if groups is not None:
                    self._write(with_empty_pools(groups, self._pools))
                trouble = ""
            except (DirectoryLost, httpx.HTTPError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning("the directory says nothing, the workers known stay: %s", error)
            except Exception as error:
                # A full disk, say: whatever it is, the next look may go well.
                if repr(error) != trouble:
                    trouble = repr(error)
                    log.exception("the workers known stay")
            await asyncio.sleep(LOOK_SECONDS)

    async def _report(self) -> RouterReport:
        page = (await self._client.get(f"{self._url}/metrics")).raise_for_status().text
        known, serving, pressures, arrived = read_metrics(page)
        return RouterReport(self._id, self._node, self._url, known, serving, pressures, arrived)

    def _write(self, groups: Groups) -> None:
        # Each router tries them in an order of its own, or all of them would begin with the same.
        for group in groups:
            random.Random(self._id).shuffle(group["targets"])
        # What lies in /tmp and does not change for days may be cleared away.
        if groups == self._written and self._file.exists():
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(groups))
        part.replace(self._file)
        self._written = groups


def with_own_key(env: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """A router's environment, with a key of our own where it asks for keys, and the headers that present it.

    Of the operators' keys only hashes are known, and to look at its metrics takes a key.
    """
    keys = json.loads(env.get("ROUTER_API_KEYS") or "[]")
    # A key of ours beside an empty list would close a router that is open.
    if not keys and not env.get("ROUTER_API_KEYS_FILE"):
        return env, {}
    key, entry = make_key("deploy.ray")
    return {**env, "ROUTER_API_KEYS": json.dumps([*keys, entry])}, {"Authorization": f"Bearer {key}"}


def with_empty_pools(groups: Groups, pools: Mapping[PoolName, bool]) -> Groups:
    """`groups`, and one without targets for each of `pools` that has no worker now."""
    named = {group["labels"]["task"] for group in groups}
    empty: Groups = [
        {"targets": [], "labels": {"task": name, "min_replicas": "0" if may_be_empty else "1"}}
        for name, may_be_empty in pools.items()
        if name not in named
    ]
    return [*groups, *empty]


Metrics = tuple[frozenset[str], frozenset[str], dict[PoolName, Pressure], dict[PoolName, float]]


def read_metrics(page: str) -> Metrics:
    """Of a router's metrics: the workers it knows, those that each of its processes gives work to, what
    each pool has waiting and running, and how many tokens were ever asked for of each."""
    processes = 1.0
    seen: dict[str, float] = {}
    ready: dict[str, float] = {}
    pressures: dict[PoolName, Pressure] = {}
    arrived: dict[PoolName, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            pool: Any = labels.get("pool")
            match sample.name:
                case "triptych_router_processes":
                    processes = value
                case "triptych_router_replica_state":
                    seen[labels["replica"]] = seen.get(labels["replica"], 0.0) + value
                    if labels["state"] == "ready":
                        ready[labels["replica"]] = value
                case "triptych_router_queue_tokens":
                    pressures[pool] = pressures.get(pool, Pressure()) + Pressure(waiting_tokens=value)
                case "triptych_router_replica_tokens_in_flight":
                    pressures[pool] = pressures.get(pool, Pressure()) + Pressure(running_tokens=value)
                case "triptych_router_requested_tokens_total":
                    arrived[pool] = arrived.get(pool, 0.0) + value
    known = frozenset(address for address, count in seen.items() if count)
    serving = frozenset(address for address in known if ready.get(address, 0.0) >= processes)
    return known, serving, pressures, arrived
