"""The Ray Serve applications of a deployment: one for each pool and one for the routers.

So each pool is upgraded and scaled, and fails, by itself. Serve imports `pool` and `routers` for the document
that `triptych ray yaml` prints.
"""

import hashlib
import json
from importlib.metadata import version
from typing import Any

from ray import serve
from ray.serve import Application

from triptych.deploy.ray.config import Autoscaling, ClusterConfig, Pool, Routers
from triptych.deploy.ray.node_router import START_SECONDS, NodeRouter
from triptych.deploy.ray.policies import NodesPolicy, PressurePolicy
from triptych.deploy.ray.pool_worker import ROUTERS_SECONDS, PoolWorker
from triptych.deploy.ray.ray_private import with_version
from triptych.workers.shared.contract import PoolName

HEALTH_PERIOD_SECONDS = 2.0
HEALTH_TIMEOUT_SECONDS = 30.0
# Serve gives up on a checkpoint that cannot be served after this many starts.
START_TRIES = 3
# More routers than any cluster has nodes.
MOST_ROUTERS = 10_000


def pool(args: dict[str, Any]) -> Application:
    """The application of one pool, from its `args` in the document."""
    ClusterConfig.model_validate(args["config"])
    return _bound(PoolWorker, args, name=args["pool"])


def routers(args: dict[str, Any]) -> Application:
    """The application of the routers, from its `args` in the document."""
    Routers.model_validate(args["routers"])
    return _bound(NodeRouter, args, name="router")


def applications(config: ClusterConfig) -> dict[str, Application]:
    """All applications by their names in Serve, the routers last."""
    built = {}
    for application in serve_document(config)["applications"]:
        kind = PoolWorker if "pool" in application["args"] else NodeRouter
        built[application["name"]] = _bound(kind, application["args"], **application["deployments"][0])
    return built


def serve_document(config: ClusterConfig) -> dict[str, Any]:
    """The applications as a document for `serve deploy`.

    Serve replaces all replicas of an application when its `args` change. So what may change without that,
    such as the number of replicas, is in Serve's own options only.
    """
    document = config.model_dump(mode="json", exclude_defaults=True)
    document.pop("routers", None)
    args: dict[str, Any]
    apps = []
    for name in config.pools:
        own = {key: value for key, value in document["pools"][name].items() if key != "replicas"}
        args = {"config": {**document, "pools": {name: own}}, "pool": name}
        apps.append(_application(config, name, pool.__name__, args, pool_options(config, name)))
    args = {
        "name": config.name,
        "routers": config.routers.model_dump(mode="json", exclude_defaults=True),
        "pools": {name: one.fewest == 0 for name, one in config.pools.items()},
    }
    options = {"name": "router", **router_options(config.routers)}
    apps.append(_application(config, "routers", routers.__name__, args, options))
    return {"proxy_location": "Disabled", "applications": apps}


def _application(
    config: ClusterConfig, part: str, builder: str, args: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": f"{config.name}-{part}",
        "route_prefix": None,
        "import_path": f"{__name__}:{builder}",
        "args": args,
        "deployments": [options],
    }


def pool_options(config: ClusterConfig, name: PoolName) -> dict[str, Any]:
    pool = config.pools[name]
    actor: dict[str, Any] = {
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus_each,
        "memory": int(pool.memory_gib * 2**30),
        "resources": pool.resources,
        "label_selector": pool.labels,
    }
    return {
        "name": name,
        **_scale(config.name, name, pool),
        **_limits(ROUTERS_SECONDS + pool.engine(name).drain_seconds + 20),
        "max_surge_percent": pool.surge_percent,
        "ray_actor_options": {key: value for key, value in actor.items() if value},
        **({"max_replicas_per_node": pool.replicas_per_node} if pool.replicas_per_node else {}),
    }


def router_options(routers: Routers) -> dict[str, Any]:
    scale: dict[str, Any] = {"num_replicas": routers.count}
    if routers.count is None:
        scale = {
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": MOST_ROUTERS,
                "upscale_delay_s": 0,
                "downscale_delay_s": 0,
                "policy": _policy(NodesPolicy, labels=routers.labels),
            }
        }
    return {
        **scale,
        **_limits(routers.drain_seconds + START_SECONDS),
        # Two routers on one node could not listen on the same port.
        "max_replicas_per_node": 1,
        "ray_actor_options": {"num_cpus": routers.cpus}
        | ({"label_selector": routers.labels} if routers.labels else {}),
    }


def _scale(deployment: str, name: PoolName, pool: Pool) -> dict[str, Any]:
    wanted = pool.replicas
    if not isinstance(wanted, Autoscaling):
        return {"num_replicas": wanted}
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
                **wanted.model_dump(include={"tokens_per_second", "utilization", "backlog_seconds"}),
            ),
        }
    }


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


def _bound(kind: type, args: dict[str, Any], **options: Any) -> Application:
    """A deployment of `kind` whose version is a digest of its arguments.

    Without a version Serve would replace every replica at each `up`.
    """
    made_of = json.dumps([version("triptych"), args], sort_keys=True).encode()
    digest = hashlib.sha256(made_of).hexdigest()[:12]
    return with_version(serve.deployment(**options)(kind), digest).bind(**args)
