"""`python -m deploy ray ...`: plan, start, look at, scale and end a deployment on a Ray cluster."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import yaml

from deploy.local.command import DEMO_WARNING
from deploy.ray import demo, placement
from deploy.ray.config import ClusterConfig, ConfigError, read_config
from deploy.ray.nodes import Node, NodesError, nodes_of_cluster, parse_nodes
from deploy.ray.plan import as_dict
from deploy.ray.plan import render as render_plan
from deploy.ray.running import Failed, connect, end_removed, look, scaled, start, stop, wait
from deploy.ray.serve_app import serve_document
from deploy.ray.status import render
from deploy.ray.weights import weights_gib

TRY_IT = """
{notice}This Ray ends with this command: Ctrl-C. From another terminal:
  .venv/bin/python -m deploy ray status
  curl {url}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'
"""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Has Serve fill one node after another; it is read where the head is started.
PACK = "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY"


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
    if options.local:
        return up_here(options)
    config = _config(options)
    connect(options.address)
    start(config)
    end_removed(config)
    seen = wait(config, options.timeout)
    print(render(seen))
    return 0 if seen.settled else 1


def up_here(options: argparse.Namespace) -> int:
    """The same on a Ray that is started here, on loopback, until a signal comes: 0.

    A second signal ends it at once.
    """
    # Under nohup a hang-up is meant to be ignored.
    signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    config = None
    try:
        _interrupt_on(signals)
        config = _config(options)
        if config.routers.host is None:
            routers = config.routers.model_copy(update={"host": "127.0.0.1"})
            config = config.model_copy(update={"routers": routers})
        _connect_here(signals)
        start(config)
        seen = wait(config, options.timeout)
        print(render(seen))
        if ready := seen.settled:
            notice = "" if options.config else f"{DEMO_WARNING}\n"
            print(TRY_IT.format(url=seen.routers[0], notice=notice), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        ready = True
    finally:
        _end_here(config, signals)
    return 0 if ready else 1


def _connect_here(signals: Sequence[signal.Signals]) -> None:
    """Start Ray here; a signal in the meantime counts afterwards, since Ray cannot be interrupted there."""
    came: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _: came.append(number))
    # Ray's processes inherit the mask: a terminal that closes must not end them before the deployment.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    connect(None, local=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    _interrupt_on(signals)
    if came:
        raise KeyboardInterrupt


def _end_here(config: ClusterConfig | None, signals: Sequence[signal.Signals]) -> None:
    try:
        try:
            _interrupt_on(signals)
            _print_stopping()
            if config is not None and ray.is_initialized():
                stop(config)
        finally:
            for number in signals:
                signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        print("stopping at once", flush=True)
    finally:
        ray.shutdown()


def _print_stopping() -> None:
    try:
        print("stopping", flush=True)
    except OSError:
        # The terminal is gone; what is printed from here on must not fail.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)


def _interrupt_on(signals: Sequence[signal.Signals]) -> None:
    """Have the next of `signals` raise KeyboardInterrupt, as Ctrl-C does; those after it are ignored."""

    def interrupt(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


def status(options: argparse.Namespace) -> int:
    """Print pools, replicas, routers, nodes and pressure."""
    config = _config(options)
    connect(options.address)
    seen = look(config)
    print(json.dumps(dataclasses.asdict(seen), indent=2) if options.json else render(seen))
    return 0 if seen.healthy else 1


def scale(options: argparse.Namespace) -> int:
    """Give pools other numbers of replicas, until the next `up`."""
    config = scaled(_config(options), dict(options.pool))
    connect(options.address)
    start(config, [name for name, _ in options.pool])
    seen = wait(config, options.timeout)
    print(render(seen))
    return 0 if seen.settled else 1


def down(options: argparse.Namespace) -> int:
    """End the deployment; what was accepted is finished first. Other applications of the cluster stay."""
    config = _config(options)
    connect(options.address)
    stop(config)
    return 0


def print_yaml(options: argparse.Namespace) -> int:
    """Print the deployment as a document for `serve deploy`."""
    print(yaml.safe_dump(serve_document(_config(options)), sort_keys=False), end="")
    return 0


def _config(options: argparse.Namespace) -> ClusterConfig:
    return demo.make() if options.config is None else read_config(options.config)


def _nodes(options: argparse.Namespace) -> tuple[Node, ...]:
    """Those that were written, else those of the cluster."""
    if options.nodes is not None:
        return parse_nodes(" ".join(options.nodes))
    connect(options.address)
    return nodes_of_cluster(ray.nodes())  # type: ignore[no-untyped-call]


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
