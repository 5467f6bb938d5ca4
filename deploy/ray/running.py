"""Starts, watches, scales and stops a deployment on a Ray cluster."""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import ray
import ray.exceptions
from ray import serve
from ray.serve.config import ProxyLocation

from triptych.deploy.ray.book import Overview
from triptych.deploy.ray.config import ClusterConfig, ConfigError, parse_config
from triptych.deploy.ray.directory import NAMESPACE, find_directory
from triptych.deploy.ray.nodes import Node, nodes_of_cluster
from triptych.deploy.ray.ray_private import delete_application
from triptych.deploy.ray.serve_app import applications
from triptych.deploy.ray.status import Status, read_status
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_POOL

LOOK_SECONDS = 1.0
# Longest wait for the directory's answer; an actor that is starting takes a while.
DIRECTORY_SECONDS = 10.0
CONNECT_SECONDS = 10.0
QUIET: Any = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}


class Failed(click.ClickException):
    """A command has failed; the text says why and what to do."""


def connect(address: str | None) -> None:
    """Connect to the cluster at `address`. Raises `Failed`."""
    where = address or os.environ.get("RAY_ADDRESS") or "this machine"
    try:
        # Where nothing answers, Ray would try for ever.
        if at := re.fullmatch(r"\[?([^\[\]/]+)\]?:(\d+)", where):
            socket.create_connection((at[1], int(at[2])), CONNECT_SECONDS).close()
        ray.init(address or "auto", **QUIET)
    except ray.exceptions.AuthenticationError as error:
        raise Failed(str(error)) from None
    except (OSError, ValueError):
        raise Failed(
            f"no Ray cluster at {where} accepts this machine: give its --address (HOST:6379) and its token "
            "(RAY_AUTH_MODE, RAY_AUTH_TOKEN), or start one with `ray start --head`"
        ) from None


def nodes(address: str | None) -> list[Node]:
    """The nodes of the cluster at `address`. Raises `ConfigError` or `Failed`."""
    connect(address)
    return nodes_of_cluster(ray.nodes())  # type: ignore[no-untyped-call]


def start(config: ClusterConfig, pools: Sequence[PoolName] | None = None) -> None:
    """Deploy the applications, or only those of `pools`, with Ray Serve. It does not wait for them."""
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


def stop_removed(config: ClusterConfig, seconds: float) -> None:
    """Stop the pools that the configuration no longer names. Raises `Failed` when one is left in the end."""
    _stop(seconds, [f"{config.name}-{name}" for name in BY_POOL if name not in config.pools])


def wait(config: ClusterConfig, seconds: float) -> Status:
    """Print the progress until everything runs, something has failed or `seconds` are over."""
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
            for name, why in seen.failed.items():
                print(f"{name}: {why}", file=sys.stderr)
            print("The rollout has stopped; replicas that served before go on serving.", file=sys.stderr)
            return seen
        if time.monotonic() > deadline:
            print(f"not everything runs after {seconds:g} s (--timeout)", file=sys.stderr)
            return seen
        time.sleep(LOOK_SECONDS)


def look(config: ClusterConfig) -> Status:
    """The status of the deployment now."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return read_status(config, serve.status().applications, _overview(config.name), nodes)


def _overview(name: str) -> Overview | None:
    """What the directory knows: empty if there is no directory, None if it does not answer."""
    if (book := find_directory(name)) is None:
        return Overview([], [], {})
    try:
        overview: Overview = ray.get(book.ask.remote("overview"), timeout=DIRECTORY_SECONDS)
    except ray.exceptions.RayError:
        return None
    return overview


def stop(config: ClusterConfig, seconds: float) -> None:
    """Stop the routers, the pools and the directory, and Serve if nothing else uses it.

    Raises `Failed` when applications are left after `seconds`; Serve goes on stopping all of them.
    """
    routers = f"{config.name}-routers"
    pools = [f"{config.name}-{name}" for name in BY_POOL]
    others = set(serve.status().applications) - {routers, *pools}
    # The routers first: they need the workers to finish the requests that they have accepted.
    _stop(seconds, [routers], pools)
    # Last, because replicas that still run would start it again.
    if (book := find_directory(config.name)) is not None:
        ray.kill(book)
    if not others:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _stop(seconds: float, *groups: Sequence[str]) -> None:
    """Stop those of the applications that run, one group after another, each within `seconds`.

    Raises `Failed` if some are left after that.
    """
    late: list[str] = []
    for names in groups:
        deadline = time.monotonic() + seconds
        left = _running(names)
        for name in left:
            print(f"ending {name}", flush=True)
            delete_application(name)
        while left and time.monotonic() <= deadline:
            time.sleep(LOOK_SECONDS)
            said, left = left, _running(left)
            if left and left != said:
                print(f"still ending: {', '.join(left)}", flush=True)
        late += left
    if late:
        raise Failed(
            f"still ending: {', '.join(late)} (--timeout). Serve goes on; run this again to wait longer, or "
            "see Serve's log"
        )


def _running(names: Sequence[str]) -> list[str]:
    running = serve.status().applications
    return [name for name in names if name in running]


def scaled(config: ClusterConfig, wanted: dict[str, int]) -> ClusterConfig:
    """`config` with other numbers of replicas; autoscaling gets another minimum. Raises `ConfigError`."""
    document = config.model_dump()
    for name, number in wanted.items():
        if name not in document["pools"]:
            raise ConfigError(f"{name} is not a pool of this deployment; it has {', '.join(config.pools)}")
        pool = document["pools"][name]
        if isinstance(pool["replicas"], dict):
            pool["replicas"] |= {"min": number, "max": max(number, pool["replicas"]["max"])}
        else:
            pool["replicas"] = number
    return parse_config(document, "scale")
