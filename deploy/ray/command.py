"""`python -m deploy ray ...`: plan, start, look at, scale and end a deployment on a Ray cluster."""

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import ray
import yaml
from ray import serve
from ray.serve.config import ProxyLocation

from deploy.ray import demo, placement
from deploy.ray.book import Overview
from deploy.ray.config import Autoscaling, ClusterConfig, ConfigError, Pool, read_config
from deploy.ray.directory import NAMESPACE, find_directory
from deploy.ray.nodes import Node, NodesError, nodes_of_cluster, parse_nodes
from deploy.ray.plan import as_dict
from deploy.ray.plan import render as render_plan
from deploy.ray.serve_app import applications, serve_document
from deploy.ray.status import Status, read_status, render
from deploy.ray.weights import weights_gib
from workers.contract import PoolName

LOOK_SECONDS = 1.0
# Has Serve fill one node after another; it is read where the head is started.
PACK = "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY"


class Failed(Exception):
    """What was asked for cannot be had; the text says why and what to do."""


def main(arguments: Sequence[str]) -> int:
    """0 when it was done; 78 when what was written has to change first, 1 when something prevents it."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (ConfigError, NodesError) as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    except Failed as error:
        print(error, file=sys.stderr)
        return 1


def plan(options: argparse.Namespace) -> int:
    """Print what would go where, and why what cannot; nothing is started."""
    config = read_config(options.config or demo.CONFIG)
    weights = {name: weights_gib(pool.model) for name, pool in config.pools.items()}
    planned = placement.plan(config, _nodes(options), weights, pack=os.environ.get(PACK) == "1")
    print(json.dumps(as_dict(planned), indent=2) if options.json else render_plan(planned))
    return 0 if planned.fits else 1


def up(options: argparse.Namespace) -> int:
    """Start the deployment, or bring a running one to what the configuration says now."""
    config = _config(options)
    _connect(options.address, local=options.local)
    start(config)
    end_removed(config)
    ready = wait(config, options.timeout)
    print(render(look(config)))
    if not options.local:
        return 0 if ready else 1
    print("\nThis Ray ends with this command: Ctrl-C.", flush=True)
    if ready:
        _until_asked_to_stop()
    stop(config)
    ray.shutdown()
    return 0 if ready else 1


def status(options: argparse.Namespace) -> int:
    """Print pools, replicas, routers, nodes and pressure."""
    config = _config(options)
    _connect(options.address)
    seen = look(config)
    print(json.dumps(dataclasses.asdict(seen), indent=2) if options.json else render(seen))
    return 0 if seen.healthy else 1


def scale(options: argparse.Namespace) -> int:
    """Give pools other numbers of replicas, until the next `up`."""
    config = scaled(_config(options), dict(options.pool))
    _connect(options.address)
    start(config, [name for name, _ in options.pool])
    ready = wait(config, options.timeout)
    print(render(look(config)))
    return 0 if ready else 1


def down(options: argparse.Namespace) -> int:
    """End the deployment; what was accepted is finished first. Other applications of the cluster stay."""
    config = _config(options)
    _connect(options.address)
    stop(config)
    return 0


def print_yaml(options: argparse.Namespace) -> int:
    """Print the deployment as a document for `serve deploy`."""
    print(yaml.safe_dump(serve_document(_config(options)), sort_keys=False), end="")
    return 0


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


def wait(config: ClusterConfig, seconds: float) -> bool:
    """Show how it goes until all applications run; whether they do."""
    said = ""
    deadline = time.monotonic() + seconds
    while True:
        seen = look(config)
        if (line := seen.line) != said:
            print(line, flush=True)
            said = line
        if seen.settled:
            return True
        if seen.failed:
            print(
                "\n".join(f"{name}: {why}" for name, why in seen.failed.items())
                + "\nThe rollout has stopped; replicas that served before go on serving.",
                file=sys.stderr,
            )
            return False
        if time.monotonic() > deadline:
            print(f"not all of it runs after {seconds:g} s (--timeout)", file=sys.stderr)
            return False
        time.sleep(LOOK_SECONDS)


def look(config: ClusterConfig) -> Status:
    """How the deployment is now."""
    book = find_directory(config.name)
    overview = ray.get(book.overview.remote(), timeout=10) if book else Overview([], [], {})
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return read_status(config, serve.status().applications, overview, nodes)


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


def _config(options: argparse.Namespace) -> ClusterConfig:
    return demo.make() if options.config is None else read_config(options.config)


def _nodes(options: argparse.Namespace) -> tuple[Node, ...]:
    """Those that were written, else those of the cluster."""
    if options.nodes is not None:
        return parse_nodes(" ".join(options.nodes))
    _connect(options.address)
    return nodes_of_cluster(ray.nodes())  # type: ignore[no-untyped-call]


def _connect(address: str | None, *, local: bool = False) -> None:
    try:
        if local:
            ray.init(address="local", namespace=NAMESPACE, log_to_driver=False, include_dashboard=False)
        else:
            ray.init(address=address or "auto", namespace=NAMESPACE, log_to_driver=False)
    except ConnectionError:
        where = address or os.environ.get("RAY_ADDRESS", "this machine")
        raise Failed(
            f"no Ray cluster at {where}: give its --address (HOST:6379), or start one with `ray start --head`"
        ) from None


def _until_asked_to_stop() -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.sigwait(signals)


def _pool_number(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    try:
        return name, int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write POOL=NUMBER, such as code=3") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy ray", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, *, cluster: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__.split("\n")[0], description=run.__doc__)
        added.add_argument("--config", type=Path, help="YAML file of the deployment; default: the demo")
        if cluster:
            added.add_argument(
                "--address", help="the cluster, HOST:6379; default: RAY_ADDRESS, this machine's"
            )
        added.set_defaults(run=run)
        return added

    added = command("plan", plan)
    added.add_argument(
        "--nodes",
        nargs="+",
        metavar="NODES",
        help="such as 2xcpus=16,gpus=1,gpu_memory=80, or a YAML file; default: the cluster's",
    )
    added.add_argument("--json", action="store_true", help="for machines")
    added = command("up", up)
    added.add_argument("--local", action="store_true", help="start a Ray here, until Ctrl-C")
    added.add_argument("--timeout", type=float, default=3600, help="seconds until all must run")
    command("status", status).add_argument("--json", action="store_true", help="for machines")
    added = command("scale", scale)
    added.add_argument("pool", nargs="+", type=_pool_number, metavar="POOL=NUMBER")
    added.add_argument("--timeout", type=float, default=3600, help="seconds until all must run")
    command("down", down)
    command("yaml", print_yaml, cluster=False)
    return parser
