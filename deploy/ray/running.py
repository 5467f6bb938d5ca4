"""A running deployment on a cluster: connected to, started, looked at, scaled and ended."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

import ray
import ray.exceptions
from ray import serve
from ray.serve.config import ProxyLocation

from deploy.ray.book import Overview
from deploy.ray.config import Autoscaling, ClusterConfig, ConfigError, Pool
from deploy.ray.directory import NAMESPACE, find_directory
from deploy.ray.serve_app import applications
from deploy.ray.status import Status, read_status
from workers.contract import PoolName

LOOK_SECONDS = 1.0
# Longest wait for the directory's answer: an actor that is only being started takes a while.
DIRECTORY_SECONDS = 10.0
QUIET: Any = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}


class Failed(Exception):
    """What was asked for cannot be had; the text says why and what to do."""


def connect(address: str | None, *, local: bool = False) -> None:
    """Be part of the cluster at `address`, or, when `local`, of one that is started here. Raises `Failed`."""
    try:
        if local:
            # On loopback: nobody else is meant to reach it.
            ray.init("local", _node_ip_address="127.0.0.1", include_dashboard=False, **QUIET)
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
    """End the pools that the configuration does not name any more."""
    present = serve.status().applications
    for name in get_args(PoolName):
        if name not in config.pools and f"{config.name}-{name}" in present:
            print(f"ending {config.name}-{name}, which is not in the configuration", flush=True)
            serve.delete(f"{config.name}-{name}")


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
    """End the applications and the directory, and Serve where nothing else uses it."""
    names = {f"{config.name}-{name}" for name in (*get_args(PoolName), "routers")}
    present = serve.status().applications
    for name in sorted(names & set(present), key=lambda name: name != f"{config.name}-routers"):
        print(f"ending {name}", flush=True)
        serve.delete(name)
    if (book := find_directory(config.name)) is not None:
        ray.kill(book)
    if not set(present) - names:
        serve.shutdown()  # type: ignore[no-untyped-call]


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
