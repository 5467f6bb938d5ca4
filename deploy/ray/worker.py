"""A replica of a pool: a Ray Serve replica that runs one worker process and says where it listens."""

import asyncio
import contextlib
import hashlib
import logging
import os
import sys
from typing import Any

import ray
from ray import serve

from deploy.local.plan import GPU_SHARE, QUIET
from deploy.local.readiness import is_ready
from deploy.ray.book import Member
from deploy.ray.config import ClusterConfig, Pool, environment
from deploy.ray.directory import DirectoryClient, DirectoryLost, node_address, shared_token
from deploy.ray.locks import held, take_port
from deploy.ray.process import ChildProcess
from workers.shared.contract import PoolName

log = logging.getLogger("ray.serve")

BEAT_SECONDS = 2.0
READY_SECONDS = 0.5
# How long a new replica waits for the routers to use it, and a leaving one for them to forget it. They look
# every half a second; one that does not answer must not stop a rollout.
ROUTERS_SECONDS = 15.0


class StartFailed(RuntimeError):
    """A worker has ended, or is not ready in time; its own log says why."""


class PoolWorker:
    """The replica. Ray places, watches and replaces it; vectors go past it, over the worker's own port."""

    # Serve awaits it, which the type checker does not expect.
    async def __init__(self, config: dict[str, Any], pool: PoolName) -> None:  # type: ignore[misc]
        parsed = ClusterConfig.model_validate(config)
        self._pool, self._its = pool, parsed.pools[pool]
        self._directory = DirectoryClient(parsed.name)
        host = node_address()
        port, self._port_lock = take_port(host, parsed.port_range)
        self._token = os.environ.get("WORKER_TOKEN") or shared_token(parsed.name)
        context = ray.get_runtime_context()
        self._member = Member(
            serve.get_replica_context().replica_id.unique_id,
            pool,
            f"{host}:{port}",
            context.get_node_id(),
            version_of(self._its),
        )
        gpus = [str(gpu) for gpu in context.get_accelerator_ids().get("GPU", [])]
        env = worker_environment(self._its, pool, host, port, self._token, dict(os.environ))
        # vLLM measures what is free on its GPU while it starts.
        async with held([f"gpu-{gpu}" for gpu in gpus]):
            self._process = ChildProcess((sys.executable, "-m", "workers"), env)
            try:
                await self._until_ready(host, port)
            except BaseException:
                await self._process.stop(0)
                self._port_lock.release()
                raise
        self._beating = asyncio.create_task(self._beat())
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("beat", self._member)
            if not await self._directory.ask(
                "until_served", self._member.address, ROUTERS_SECONDS, seconds=ROUTERS_SECONDS + 5
            ):
                log.warning("not every router uses %s yet", self._member.address)

    async def check_health(self) -> None:
        """Called by Serve every few seconds; an error three times in a row has the replica replaced."""
        if (code := self._process.ended) is not None:
            raise RuntimeError(f"the worker has ended with {code}")
        if self._beating.done():
            raise RuntimeError("the directory is not told of the worker any more; the replica's log says why")
        host, _, port = self._member.address.rpartition(":")
        if await is_ready(host, int(port), self._token):
            return
        raise RuntimeError(f"the worker at {self._member.address} is not ready")

    async def __del__(self) -> None:
        """Called by Serve before the replica is stopped: routers first, then what the worker still has."""
        self._beating.cancel()
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("leave", self._member.id)
            await self._directory.ask(
                "until_forgotten", self._member.address, ROUTERS_SECONDS, seconds=ROUTERS_SECONDS + 5
            )
        await self._process.stop(self._its.setting("drain_seconds") + 5)
        self._port_lock.release()

    async def _until_ready(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(self._its.start_seconds):
                while not await is_ready(host, port, self._token):
                    if (code := self._process.ended) is not None:
                        raise StartFailed(
                            f"the worker of pool {self._pool} on {host} ended with {code} while it started; "
                            "the replica's log says why"
                        )
                    await asyncio.sleep(READY_SECONDS)
        except TimeoutError:
            raise StartFailed(
                f"the worker of pool {self._pool} on {host} is not ready after {self._its.start_seconds:g} s "
                "(start_seconds)"
            ) from None

    async def _beat(self) -> None:
        while True:
            try:
                if self._process.ended is None:
                    await self._directory.ask("beat", self._member)
            except DirectoryLost as error:
                log.warning("the directory cannot be told of %s: %s", self._member.address, error)
            except Exception:
                # Whatever it is, the next beat may go well; without beats no router knows the worker.
                log.exception("the directory cannot be told of %s", self._member.address)
            await asyncio.sleep(BEAT_SECONDS)


def version_of(pool: Pool) -> str:
    """What tells replicas of one configuration from those of another: `up` with a change is an upgrade."""
    made_of = pool.model_copy(update={"replicas": 1}).model_dump_json()
    return hashlib.sha256(made_of.encode()).hexdigest()[:8]


def worker_environment(
    pool: Pool, name: PoolName, host: str, port: int, token: str, environ: dict[str, str]
) -> dict[str, str]:
    """The worker's environment: the node's, what the configuration says, and what the placement decides."""
    share = {}
    if 0 < pool.gpus_each < 1:
        share["WORKER_GPU_MEMORY_UTILIZATION"] = f"{GPU_SHARE * pool.gpus_each:.3f}"
    revision = {"WORKER_REVISION": pool.revision} if pool.revision else {}
    own = {
        "WORKER_MODEL": pool.model,
        "WORKER_TASK": name,
        "WORKER_HOST": host,
        "WORKER_PORT": str(port),
        "WORKER_TOKEN": token,
        "WORKER_TENSOR_PARALLEL": str(pool.tensor_parallel),
    }
    inherited = {key: value for key, value in environ.items() if not key.startswith("ROUTER_")}
    return {
        **QUIET,
        **inherited,
        **share,
        **environment("WORKER_", pool.worker),
        **pool.env,
        **revision,
        **own,
    }
