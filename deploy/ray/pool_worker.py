"""A Ray Serve replica that runs one worker process and tells the directory where it listens."""

import asyncio
import contextlib
import logging
import os
import sys
from typing import Any

import ray
from ray import serve

from triptych.deploy.common.child_process import ChildProcess
from triptych.deploy.common.environments import QUIET, gpu_share_env, settings_env
from triptych.deploy.common.readiness import is_ready
from triptych.deploy.ray.book import Member
from triptych.deploy.ray.config import ClusterConfig, Pool
from triptych.deploy.ray.directory import DirectoryClient, DirectoryLost, node_address, repeat, shared_token
from triptych.deploy.ray.locks import gpus_locked, take_port
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.host_ports import address_of

log = logging.getLogger("ray.serve")

BEAT_SECONDS = 2.0
ASK_SECONDS = 0.5
WORKER = (sys.executable, "-m", "triptych.workers")
# How long a new replica waits until the routers use it, and a leaving one until they do not. A router that
# does not answer must not stop a rollout.
ROUTERS_SECONDS = 15.0


class PoolWorker:
    """The replica. Ray places, watches and replaces it. Routers call the worker's own port."""

    # Serve awaits it, which the type checker does not expect.
    async def __init__(self, config: dict[str, Any], pool: PoolName) -> None:  # type: ignore[misc]
        self._started = False
        parsed = ClusterConfig.model_validate(config)
        settings = parsed.pools[pool]
        self._drain_seconds = settings.engine(pool).drain_seconds
        self._directory = DirectoryClient(parsed.name)
        self._host = host = node_address()
        self._port, self._port_lock = take_port(host, parsed.port_range)
        self._token = os.environ.get("WORKER_TOKEN") or shared_token(parsed.name)
        context, replica = ray.get_runtime_context(), serve.get_replica_context()
        self._member = Member(
            replica.replica_id.unique_id,
            pool,
            address_of(host, self._port),
            context.get_node_id(),
            # Routers tell old and new replicas apart by it in an upgrade.
            replica.code_version,
        )
        env = worker_environment(settings, pool, host, self._port, self._token, dict(os.environ))
        # vLLM measures the free memory of its GPU while it starts.
        async with gpus_locked([str(gpu) for gpu in context.get_accelerator_ids().get("GPU", [])]):
            self._process = ChildProcess(WORKER, env, death_signal=False)
            await self._process.until(
                self._is_ready, settings.start_seconds, f"the worker of pool {pool} on {host}"
            )
        self._beating = asyncio.create_task(repeat(self._beat, BEAT_SECONDS))
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("beat", self._member)
            await self._until("served_by_all")
        self._started = True

    async def check_health(self) -> None:
        """Called by Serve every few seconds; it replaces the replica after three errors in a row."""
        if (code := self._process.code) is not None:
            raise RuntimeError(f"the worker has ended with {code}")
        if not await self._is_ready():
            raise RuntimeError(f"the worker at {self._member.address} is not ready")

    async def __del__(self) -> None:
        """Called by Serve to stop the replica: leave the routers, then finish the worker's requests."""
        if not self._started:
            # Its guard ends the worker.
            return
        self._beating.cancel()
        with contextlib.suppress(DirectoryLost):
            await self._directory.ask("leave", self._member.id)
            await self._until("known_by_none")
        await self._process.stop(self._drain_seconds + 5)
        self._port_lock.release()

    async def _until(self, question: str) -> None:
        """Ask the directory until the answer is yes. Raises `DirectoryLost`."""
        try:
            async with asyncio.timeout(ROUTERS_SECONDS):
                while not await self._directory.ask(question, self._member.address):  # noqa: ASYNC110
                    await asyncio.sleep(ASK_SECONDS)
        except TimeoutError:
            log.warning("%s: not %s after %g s", self._member.address, question, ROUTERS_SECONDS)

    async def _is_ready(self) -> bool:
        return await is_ready(self._host, self._port, self._token)

    async def _beat(self) -> None:
        if self._process.code is None:
            await self._directory.ask("beat", self._member)


def worker_environment(
    pool: Pool, name: PoolName, host: str, port: int, token: str, environ: dict[str, str]
) -> dict[str, str]:
    """The worker's environment, from the node, the configuration and the placement; later ones win."""
    own = {
        "WORKER_MODEL": pool.model,
        "WORKER_TASK": name,
        "WORKER_HOST": host,
        "WORKER_PORT": str(port),
        "WORKER_TOKEN": token,
        "WORKER_TENSOR_PARALLEL": str(pool.tensor_parallel),
    }
    inherited = {key: value for key, value in environ.items() if not key.startswith("ROUTER_")}
    share, settings = gpu_share_env(pool.gpus_each), settings_env("WORKER_", pool.worker)
    return {**QUIET, **inherited, **share, **settings, **pool.env, **own}
