"""The commands and environments of the router and the workers on one machine."""

import json
import secrets
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from triptych.deploy.common.environments import QUIET, gpu_share_env, with_own_key
from triptych.deploy.common.gpu_memory import verdict, weights_gib
from triptych.deploy.common.readiness import reachable
from triptych.deploy.common.variants import Models
from triptych.deploy.local.supervisor import Spec
from triptych.deploy.settings import DeploySettings
from triptych.router.pool.targets import document_of
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.host_ports import address_of
from triptych.workers.shared.strict_settings import SettingsError, read_settings

# Settings that differ for each process, and the setting to use instead. They are refused in the environment.
OURS = {
    "WORKER_MODEL": "DEPLOY_MODEL or DEPLOY_VARIANTS",
    "WORKER_TASK": "DEPLOY_POOLS",
    "WORKER_PORT": "DEPLOY_WORKER_PORT",
    "ROUTER_WORKERS": "DEPLOY_POOLS",
    "ROUTER_DISCOVERY": "DEPLOY_POOLS",
}
WORKER_HOST = "127.0.0.1"
PREFIXES = ("DEPLOY_", "ROUTER_", "WORKER_")

Group = tuple[str, ...]


def normalized(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as the settings classes read it: names of settings in upper case, empty ones left out."""
    named = {
        name.upper() if name.upper().startswith(PREFIXES) else name: value for name, value in environ.items()
    }
    return {name: value for name, value in named.items() if value or not name.startswith(PREFIXES)}


def with_token(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the token that router and workers share: the operator's, or a new one.

    Raises `SettingsError` when the operator set two different ones.
    """
    given = {environ[name] for name in ("ROUTER_WORKER_TOKEN", "WORKER_TOKEN") if environ.get(name)}
    if len(given) > 1:
        raise SettingsError("ROUTER_WORKER_TOKEN and WORKER_TOKEN differ; set one of them")
    token = given.pop() if given else secrets.token_urlsafe(32)
    return {**environ, "ROUTER_WORKER_TOKEN": token, "WORKER_TOKEN": token}


def plan_workers(
    settings: DeploySettings,
    models: Models,
    environ: Mapping[str, str],
    gpus: Mapping[str, float | None],
    cores: int,
) -> list[Spec]:
    """The workers, in the order of their ports; a pool's workers go on different GPUs.

    `environ` is the operator's environment. It overrides the defaults here. `gpus` have their memory in GiB,
    None if unknown. Raises `SettingsError`, also when an engine cannot start in its share of a GPU.
    """
    if taken := [f"{name} (use {instead})" for name, instead in OURS.items() if name in environ]:
        raise SettingsError(f"set by the deployment itself, so take it out: {', '.join(taken)}")
    # A pool's workers are apart, so that they go on different GPUs.
    pools = [
        pool
        for replica in range(max(settings.pools.values()))
        for pool, replicas in settings.pools.items()
        if replica < replicas
    ]
    groups = _place(pools, [*gpus], int(environ.get("WORKER_TENSOR_PARALLEL", "1")))
    sharing = Counter(groups)
    seen: Counter[PoolName] = Counter()
    workers = []
    for port, (pool, group) in enumerate(zip(pools, groups, strict=True), settings.worker_port):
        name = f"{pool}-{seen[pool]}"
        own = {"WORKER_MODEL": models.folders[pool], "WORKER_TASK": pool, "WORKER_PORT": str(port)}
        if group:
            if pool not in models.demo:
                _check_memory(name, pool, models, sharing[group], {gpu: gpus[gpu] for gpu in group})
            env = gpu_share_env(1 / sharing[group])
            own["CUDA_VISIBLE_DEVICES"] = ",".join(group)
        else:
            env = _cpu_env(max(1, cores // len(pools)), pool in models.demo)
        spec = Spec(
            name=name,
            argv=(sys.executable, "-m", "triptych.workers"),
            env={**QUIET, **env, **environ, **own},
            host=reachable(environ.get("WORKER_HOST", WORKER_HOST)),
            port=port,
            # vLLM measures the free memory of its GPU while it starts, so workers on one GPU take turns.
            gate="+".join(group) if group else None,
            token=environ.get("WORKER_TOKEN"),
            pool=pool,
        )
        seen[pool] += 1
        workers.append(spec)
    return workers


def plan_router(workers: Sequence[Spec], environ: Mapping[str, str]) -> Spec:
    """The router, with the addresses of the workers. Raises `SettingsError`."""
    document = document_of(
        (spec.pool, None, address_of(spec.host, spec.port)) for spec in workers if spec.pool
    )
    # The operator's settings come from the environment, as in the router itself.
    settings = read_settings(RouterSettings, workers=document)
    if settings.port == 0:
        raise SettingsError("ROUTER_PORT: 0 is a random port; choose one")
    if settings.port in {spec.port for spec in workers}:
        raise SettingsError("ROUTER_PORT is one of the workers' ports; change it or DEPLOY_WORKER_PORT")
    env, key = with_own_key({**environ, "ROUTER_WORKERS": json.dumps(document)}, "deploy.local")
    return Spec(
        name="router",
        argv=(sys.executable, "-m", "triptych.router"),
        env=env,
        host=reachable(settings.host),
        port=settings.port,
        token=key,
    )


def _place(pools: Sequence[PoolName], gpus: Sequence[str], size: int) -> list[Group]:
    """The group of `size` GPUs for each worker; empty groups without GPUs.

    It takes the group with the fewest workers of the pool, then the one with the fewest workers.
    """
    if not gpus:
        return [()] * len(pools)
    if len(gpus) < size:
        raise SettingsError(
            f"WORKER_TENSOR_PARALLEL is {size}, but there are {len(gpus)} GPUs to use (DEPLOY_GPUS)"
        )
    groups = [tuple(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]
    placed: Counter[tuple[Group, PoolName]] = Counter()
    places: list[Group] = []
    for pool in pools:
        group = min(groups, key=lambda group: (placed[group, pool], places.count(group)))
        placed[group, pool] += 1
        places.append(group)
    return places


def _check_memory(
    name: str, pool: PoolName, models: Models, sharing: int, group: Mapping[str, float | None]
) -> None:
    """Raises `SettingsError` when an engine cannot start on `group`, shared by `sharing` workers."""
    model = models.folders[pool]
    found = verdict(
        # The other settings are the operator's, from the environment.
        read_settings(WorkerSettings, model=model, task=pool),
        1 / sharing if sharing > 1 else len(group),
        # Variants are as large as the checkpoint that they will be merged from.
        weights_gib(model, pool) or weights_gib(models.sources.get(pool, model), pool),
        min(group.values(), key=lambda gib: gib or 0),
    )
    if found.holds == "no":
        shared = f" {sharing} workers share GPU {next(iter(group))}." if sharing > 1 else ""
        raise SettingsError(
            f"{name} cannot start: {found.text}.{shared} Serve fewer pools (DEPLOY_POOLS=code), "
            "use more or larger GPUs (DEPLOY_GPUS), take shorter inputs (WORKER_MAX_TOKENS), or the demo "
            "(DEPLOY_MODEL=demo)"
        )


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
