"""A running deployment on a cluster: connected to, started, looked at, scaled and ended."""

import logging
import os
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any, get_args

import ray
import ray.exceptions
from ray import serve
from ray._private import utils as ray_utils
from ray.serve.config import ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeInstanceDetails

from deploy.ray.book import Overview
from deploy.ray.config import Autoscaling, ClusterConfig, ConfigError, Pool
from deploy.ray.directory import NAMESPACE, find_directory
from deploy.ray.serve_app import applications
from deploy.ray.status import Status, read_status
from workers.shared.contract import PoolName

LOOK_SECONDS = 1.0
# Longest wait for the directory's answer: an actor that is only being started takes a while.
DIRECTORY_SECONDS = 10.0
# Beyond the time that replicas have to stop: for Serve, which kills them then, and takes a moment to say so.
END_SECONDS = 60.0
QUIET: Any = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}


class Failed(Exception):
    """What was asked for cannot be had; the text says why and what to do."""


def connect(address: str | None, *, local: bool = False) -> None:
    """Be part of the cluster at `address`, or, when `local`, of one that is started here. Raises `Failed`.

    The one that is started here leaves the handler of SIGTERM as it is.
    """
    try:
        if local:
            # Ray's own would end ray.init half way, and leave some of its processes. Tested with Ray 2.60.
            ray_utils.set_sigterm_handler = lambda _: None
            # On loopback. Ray replaces 127.0.0.1 by the address in the network; the cluster tests take
            # 127.0.0.2 to 127.0.0.5.
            ray.init("local", _node_ip_address="127.0.0.100", include_dashboard=False, **QUIET)
        else:
            ray.init(address or "auto", **QUIET)
    except ConnectionError:
        where = address or os.environ.get("RAY_ADDRESS", "this machine")
        raise Failed(
            f"no Ray cluster at {where}: give its --address (HOST:6379), or start one with `ray start --head`"
        ) from None


def start(config: ClusterConfig, pools: Sequence[PoolName] | None = None) -> None:
    """Hand the applications, or those of `pools`, to Ray Serve; it goes on by itself."""
    serve.start(proxy_location=ProxyLocation.Disabled)
    chosen = None if pools is None else {f"{config.name}-{name}" for name in pools}
    serve.run_many(
        [
            serve.RunTarget(application, name, route_prefix=None)
            for name, application in applications(config).items()
            if chosen is None or name in chosen
        ],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def end_removed(config: ClusterConfig) -> None:
    """End the pools that the configuration does not name any more. Raises `Failed` when one does not end."""
    present = serve.status().applications
    removed = [f"{config.name}-{name}" for name in get_args(PoolName) if name not in config.pools]
    _all_ended(_end([name for name in removed if name in present]))


def wait(config: ClusterConfig, seconds: float) -> Status:
    """Show how it goes until all of it runs, or cannot, or the time is over; how it is then."""
    said = ""
    deadline = time.monotonic() + seconds
    while True:
        seen = look(config)
        if (line := seen.line) != said:
            print(line, flush=True)
            said = line
        if seen.settled:
            return seen
        if seen.failed:
            print(
                "\n".join(f"{name}: {why}" for name, why in seen.failed.items())
                + "\nThe rollout has stopped; replicas that served before go on serving.",
                file=sys.stderr,
            )
            return seen
        if time.monotonic() > deadline:
            print(f"not all of it runs after {seconds:g} s (--timeout)", file=sys.stderr)
            return seen
        time.sleep(LOOK_SECONDS)


def look(config: ClusterConfig) -> Status:
    """How the deployment is now."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return read_status(config, serve.status().applications, _overview(config.name), nodes)


def _overview(name: str) -> Overview | None:
    """What the directory knows: nothing where there is none yet, None when it does not answer."""
    if (book := find_directory(name)) is None:
        return Overview([], [], {})
    try:
        overview: Overview = ray.get(book.overview.remote(), timeout=DIRECTORY_SECONDS)
    except ray.exceptions.RayError:
        return None
    return overview


def stop(config: ClusterConfig) -> None:
    """End the applications and the directory, and Serve where nothing else uses it.

    Raises `Failed` when an application does not end; all are told to, also behind one that is slow.
    """
    routers = f"{config.name}-routers"
    pools = [f"{config.name}-{name}" for name in get_args(PoolName)]
    present = serve.status().applications
    # What the routers have accepted still needs the workers.
    left = _end([routers] if routers in present else [])
    left += _end([name for name in pools if name in present])
    # The directory too: what is left would start another.
    _all_ended(left)
    if (book := find_directory(config.name)) is not None:
        ray.kill(book)
    if not set(present) - {routers, *pools}:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _end(names: Collection[str]) -> list[str]:
    """End applications and wait, while it is said which are left; those that are when their time is over."""
    if not names:
        return []
    deadline = time.monotonic() + _stop_seconds(names) + END_SECONDS
    for name in names:
        print(f"ending {name}", flush=True)
        # To wait is for us: Serve gives up after a minute, whatever time its replicas have.
        serve.delete(name, _blocking=False)
    said = list(names)
    while left := [name for name in names if name in serve.status().applications]:
        if left != said:
            print(f"still ending: {', '.join(left)}", flush=True)
            said = left
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    return left


def _stop_seconds(names: Collection[str]) -> float:
    """The longest time that a replica of these applications has to stop, as Serve knows it.

    Not as a configuration has it, which may have changed since, or name some of them no more.
    """
    client: Any = _get_global_client()
    details = ServeInstanceDetails(**client.get_serve_details())
    return max(
        (
            float(deployment.deployment_config.graceful_shutdown_timeout_s)
            for name in names
            if name in details.applications
            for deployment in details.applications[name].deployments.values()
        ),
        default=0.0,
    )


def _all_ended(left: Sequence[str]) -> None:
    if left:
        raise Failed(
            f"not ended in the time that it has: {', '.join(left)}. Serve goes on ending what is left; "
            "run this again to wait for it, or see its log for what holds it up"
        )


def scaled(config: ClusterConfig, wanted: dict[PoolName, int]) -> ClusterConfig:
    """`config` with other numbers; a pool that scales by itself gets other bounds. Raises `ConfigError`."""
    pools: dict[PoolName, Pool] = dict(config.pools)
    for name, number in wanted.items():
        if name not in pools:
            raise ConfigError(f"{name} is no pool of this deployment; it has {', '.join(pools)}")
        if number < 1:
            raise ConfigError(f"{name}={number}: at least 1")
        replicas = pools[name].replicas
        if isinstance(replicas, Autoscaling):
            top = max(number, replicas.max)
            pools[name] = pools[name].model_copy(
                update={"replicas": replicas.model_copy(update={"min": number, "max": top})}
            )
        else:
            pools[name] = pools[name].model_copy(update={"replicas": number})
    return config.model_copy(update={"pools": pools})
