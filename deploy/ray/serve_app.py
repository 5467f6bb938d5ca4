"""The Ray Serve applications of a deployment: one for each pool and one for the routers.

So each pool is upgraded and scaled, and fails, by itself. Serve imports `pool` and `routers`, for `up` and
for the YAML that `python -m deploy ray yaml` prints.
"""

import hashlib
import json
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from deploy.ray.config import Autoscaling, ClusterConfig, Pool, Routers
from deploy.ray.node_router import START_SECONDS, NodeRouter
from deploy.ray.policies import NodesPolicy, PressurePolicy
from deploy.ray.pool_worker import ROUTERS_SECONDS, PoolWorker
from deploy.ray.ray_private import with_version
from workers.shared.contract import PoolName

HEALTH_PERIOD_SECONDS = 2.0
HEALTH_TIMEOUT_SECONDS = 30.0
# Serve gives up on a checkpoint that cannot be served after this many starts.
START_TRIES = 3
# More routers than any cluster has nodes.
MOST_ROUTERS = 10_000


class PoolArgs(BaseModel):
    """Arguments of `pool`: the whole configuration, and the name of the pool."""

    config: dict[str, Any]
    pool: PoolName


class RouterArgs(BaseModel):
    """Arguments of `routers`. A change of them replaces the routers."""

    name: str
    routers: dict[str, Any]
    pools: dict[PoolName, bool]


def pool(args: PoolArgs) -> Application:
    """The application of one pool."""
    config = ClusterConfig.model_validate(args.config)
    its = config.pools[args.pool]
    # A change of this replaces the replicas; a change of their number does not.
    own = config.model_copy(update={"pools": {args.pool: its.model_copy(update={"replicas": 1})}})
    document = own.model_dump(mode="json", exclude={"routers"})
    options = pool_options(config, args.pool)
    return _bound(PoolWorker, args.pool, options, document, args.pool)


def routers(args: RouterArgs) -> Application:
    """The application of the routers."""
    its = Routers.model_validate(args.routers)
    return _bound(NodeRouter, "router", router_options(its), args.name, args.routers, args.pools)


def applications(config: ClusterConfig) -> dict[str, Application]:
    """All applications by their names in Serve, the routers last."""
    document = config.model_dump(mode="json")
    built = {f"{config.name}-{name}": pool(PoolArgs(config=document, pool=name)) for name in config.pools}
    return built | {f"{config.name}-routers": routers(RouterArgs(**_router_args(config)))}


def serve_document(config: ClusterConfig) -> dict[str, Any]:
    """The applications as a document for `serve deploy`.

    Values that may change without replacing replicas are not in the arguments but in Serve's own options:
    Serve replaces all replicas when arguments change.
    """
    document = config.model_dump(mode="json", exclude_defaults=True)
    apps = []
    for name in config.pools:
        fixed = {**document, "pools": {name: {**document["pools"][name]}}}
        fixed["pools"][name].pop("replicas", None)
        fixed.pop("routers", None)
        options = pool_options(config, name)
        apps.append(
            _application(f"{config.name}-{name}", "pool", {"config": fixed, "pool": name}, name, options)
        )
    apps.append(
        _application(
            f"{config.name}-routers",
            "routers",
            _router_args(config),
            "router",
            router_options(config.routers),
        )
    )
    return {"proxy_location": "Disabled", "applications": apps}


def pool_options(config: ClusterConfig, name: PoolName) -> dict[str, Any]:
    """Serve's options for the replicas of a pool."""
    its = config.pools[name]
    return {
        **_scale(config.name, name, its),
        **_limits(ROUTERS_SECONDS + its.engine(name).drain_seconds + 20),
        "max_surge_percent": its.surge_percent,
        "ray_actor_options": _actor(its.cpus, its.gpus_each, its.memory_gib, its.resources, its.labels),
        **({"max_replicas_per_node": its.replicas_per_node} if its.replicas_per_node else {}),
    }


def router_options(its: Routers) -> dict[str, Any]:
    """Serve's options for the routers."""
    scale: dict[str, Any] = {"num_replicas": its.count}
    if its.count is None:
        scale = {
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": MOST_ROUTERS,
                "upscale_delay_s": 0,
                "downscale_delay_s": 0,
                "policy": _policy(NodesPolicy, labels=its.labels),
            }
        }
    return {
        **scale,
        **_limits(sum(its.drain_times) + START_SECONDS),
        # Two routers on one node could not listen on the same port.
        "max_replicas_per_node": 1,
        "ray_actor_options": _actor(its.cpus, 0, 0, {}, its.labels),
    }


def _router_args(config: ClusterConfig) -> dict[str, Any]:
    return {
        "name": config.name,
        "routers": config.routers.model_dump(mode="json", exclude_defaults=True),
        "pools": {name: its.fewest == 0 for name, its in config.pools.items()},
    }


def _scale(deployment: str, name: PoolName, its: Pool) -> dict[str, Any]:
    match its.replicas:
        case Autoscaling() as wanted:
            return {
                "autoscaling_config": {
                    "min_replicas": wanted.min,
                    "max_replicas": wanted.max,
                    "upscale_delay_s": wanted.up_seconds,
                    "downscale_delay_s": wanted.down_seconds,
                    "downscale_to_zero_delay_s": wanted.to_zero_seconds,
                    "policy": _policy(
                        PressurePolicy,
                        name=deployment,
                        pool=name,
                        tokens_per_second=wanted.tokens_per_second,
                        utilization=wanted.utilization,
                        backlog_seconds=wanted.backlog_seconds,
                    ),
                }
            }
        case number:
            return {"num_replicas": number}


def _policy(kind: type, **arguments: Any) -> dict[str, Any]:
    return {"policy_function": f"{kind.__module__}:{kind.__name__}", "policy_kwargs": arguments}


def _limits(stop_seconds: float) -> dict[str, Any]:
    return {
        "health_check_period_s": HEALTH_PERIOD_SECONDS,
        "health_check_timeout_s": HEALTH_TIMEOUT_SECONDS,
        "graceful_shutdown_timeout_s": stop_seconds,
        # Serve carries no requests, so it need not wait for any.
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_constructor_retry_count": START_TRIES,
    }


def _actor(
    cpus: float, gpus: float, memory_gib: float, resources: dict[str, float], labels: dict[str, str]
) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": cpus}
    if gpus:
        options["num_gpus"] = gpus
    if memory_gib:
        options["memory"] = int(memory_gib * 2**30)
    if resources:
        options["resources"] = resources
    if labels:
        options["label_selector"] = labels
    return options


def _application(
    name: str, builder: str, args: dict[str, Any], deployment: str, options: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": None,
        "import_path": f"{__name__}:{builder}",
        "args": args,
        "deployments": [{"name": deployment, **options}],
    }


def _bound(kind: type, name: str, options: dict[str, Any], *arguments: Any) -> Application:
    """A deployment of `kind` whose version is a digest of its arguments and resources.

    Without a version Serve would replace every replica at each `up`.
    """
    actor = options["ray_actor_options"]
    made_of = json.dumps([version("triptych"), arguments, actor], sort_keys=True).encode()
    deployment = serve.deployment(name=name, **options)(kind)
    digest = hashlib.sha256(made_of).hexdigest()[:12]
    application: Application = with_version(deployment, digest).bind(*arguments)
    return application
