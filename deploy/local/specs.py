"""The commands and environments of the router and the workers on one machine."""

import json
import secrets
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from deploy.common.readiness import reachable
from deploy.common.variants import Models
from deploy.common.worker_env import QUIET, gpu_share_env
from deploy.local.supervisor import Spec
from deploy.settings import DeploySettings
from router.access.keys import make_key
from router.settings import RouterSettings
from workers.shared.contract import PoolName
from workers.shared.strict_settings import read_settings

# Settings that differ for each process, and the setting to use instead. They are refused in the environment.
OURS = {
    "WORKER_MODEL": "DEPLOY_MODEL or DEPLOY_VARIANTS",
    "WORKER_TASK": "DEPLOY_POOLS",
    "WORKER_PORT": "DEPLOY_WORKER_PORT",
    "ROUTER_WORKERS": "DEPLOY_POOLS",
    "ROUTER_DISCOVERY": "DEPLOY_POOLS",
}
WORKER_HOST = "127.0.0.1"

Group = tuple[str, ...]


class PlanError(ValueError):
    """The settings contradict each other or the machine; the text names the settings."""


def with_token(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the token that router and workers share: the operator's, or a new one.

    Raises `PlanError` when the operator set two different ones.
    """
    given = {environ[name] for name in ("ROUTER_WORKER_TOKEN", "WORKER_TOKEN") if environ.get(name)}
    if len(given) > 1:
        raise PlanError("ROUTER_WORKER_TOKEN and WORKER_TOKEN differ; set one of them")
    token = given.pop() if given else secrets.token_urlsafe(32)
    return {**environ, "ROUTER_WORKER_TOKEN": token, "WORKER_TOKEN": token}


def plan_workers(
    settings: DeploySettings,
    models: Models,
    environ: Mapping[str, str],
    gpus: Sequence[str],
    cores: int,
) -> list[tuple[PoolName, Spec]]:
    """Each worker with its pool, in the order of their ports; a pool's workers go on different GPUs.

    `environ` is the operator's environment. It overrides the defaults here. Raises `PlanError`.
    """
    if taken := [f"{name} (use {instead})" for name, instead in OURS.items() if name in environ]:
        raise PlanError(f"set by the deployment itself, so take it out: {', '.join(taken)}")
    pools = [
        pool
        for replica in range(max(settings.pools.values()))
        for pool, replicas in settings.pools.items()
        if replica < replicas
    ]
    groups = _place(pools, _gpu_groups(gpus, int(environ.get("WORKER_TENSOR_PARALLEL", "1"))))
    sharing = Counter(groups)
    host = environ.get("WORKER_HOST", WORKER_HOST)
    seen: Counter[PoolName] = Counter()
    workers = []
    for index, (pool, group) in enumerate(zip(pools, groups, strict=True)):
        if group:
            env = gpu_share_env(1 / sharing[group])
        else:
            env = _cpu_env(max(1, cores // len(pools)), models.demo)
        own = {
            "WORKER_MODEL": models.folders[pool],
            "WORKER_TASK": pool,
            "WORKER_PORT": str(_port(settings, index)),
        }
        if group:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(group)
        spec = Spec(
            name=f"{pool}-{seen[pool]}",
            argv=(sys.executable, "-m", "workers"),
            env={**QUIET, **env, **environ, **own},
            host=reachable(host),
            port=_port(settings, index),
            # vLLM measures the free memory of its GPU while it starts, so workers on one GPU take turns.
            gate="+".join(group) if group else None,
            token=environ.get("WORKER_TOKEN"),
        )
        seen[pool] += 1
        workers.append((pool, spec))
    return workers


def plan_router(workers: Sequence[tuple[PoolName, Spec]], environ: Mapping[str, str]) -> Spec:
    """The router, with the addresses of the workers. Raises `PlanError` or `SettingsError`."""
    targets: dict[str, list[str]] = {}
    for pool, spec in workers:
        address = f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}"
        targets.setdefault(pool, []).append(address)
    document = [{"targets": addresses, "labels": {"task": pool}} for pool, addresses in targets.items()]
    # The operator's settings come from the environment, as in the router itself.
    settings = read_settings(RouterSettings, workers=document)
    if settings.port == 0:
        raise PlanError("ROUTER_PORT: 0 is a random port; choose one")
    if settings.port in {spec.port for _, spec in workers}:
        raise PlanError("ROUTER_PORT is one of the workers' ports; change it or DEPLOY_WORKER_PORT")
    env = {**environ, "ROUTER_WORKERS": json.dumps(document)}
    token = None
    if settings.guarded:
        # /ready needs a key, and of the operator's keys only hashes are known.
        token, entry = make_key("deploy.local")
        keys = [*(key.model_dump() for key in settings.api_keys), entry]
        env["ROUTER_API_KEYS"] = json.dumps(keys)
    return Spec(
        name="router",
        argv=(sys.executable, "-m", "router"),
        env=env,
        host=reachable(settings.host),
        port=settings.port,
        token=token,
    )


def _port(settings: DeploySettings, index: int) -> int:
    if settings.worker_port + index > 65535:
        raise PlanError("DEPLOY_WORKER_PORT: too high for that many workers")
    return settings.worker_port + index


def _gpu_groups(gpus: Sequence[str], size: int) -> list[Group]:
    """Groups of `size` GPUs, one for each engine; the remaining GPUs are left out."""
    if not gpus:
        return []
    if len(gpus) < size:
        raise PlanError(
            f"WORKER_TENSOR_PARALLEL is {size}, but there are {len(gpus)} GPUs to use (DEPLOY_GPUS)"
        )
    return [tuple(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]


def _place(pools: Sequence[PoolName], groups: Sequence[Group]) -> list[Group]:
    """A group for each worker: the one with the fewest workers of its pool, then with the fewest workers."""
    if not groups:
        return [()] * len(pools)
    placed: Counter[tuple[Group, PoolName]] = Counter()
    total: Counter[Group] = Counter()
    places = []
    for pool in pools:
        group = min(groups, key=lambda group: (placed[group, pool], total[group]))
        placed[group, pool] += 1
        total[group] += 1
        places.append(group)
    return places


def _cpu_env(threads: int, demo: bool) -> dict[str, str]:
    """Settings of engines that share the cores: each has its part of the threads, and no thread is pinned.

    By default vLLM gives each engine a thread for every core but one, and pins them, so several engines
    compete for the same cores. The cache, in GiB, has to hold one text of 32,768 tokens. A token takes 72 KiB
    with the real weights in float32.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # A core takes about a third of a second for one such step with the demo's weights.
        "WORKER_BATCH_TOKENS": "1024",
        "WORKER_KV_CACHE_GIB": "1" if demo else "3",
    }
