"""`python -m deploy ray ...`: plan, start, watch, scale and stop a deployment on a Ray cluster."""

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

from triptych.deploy.common.gpu_memory import weights_gib
from triptych.deploy.common.variants import DEMO_WARNING
from triptych.deploy.ray import demo, fit_check
from triptych.deploy.ray.config import ClusterConfig, ConfigError, read_config
from triptych.deploy.ray.nodes import Node, NodesError, nodes_of_cluster, parse_nodes
from triptych.deploy.ray.running import Failed, connect, look, scaled, start, stop, stop_removed, wait
from triptych.deploy.ray.serve_app import serve_document
from triptych.deploy.ray.status import render

TRY_IT = """
{notice}This Ray ends with this command: Ctrl-C. From another terminal:
  .venv/bin/python -m deploy ray status
  curl {url}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'
"""
OPTIONS: dict[str, dict[str, Any]] = {
    "--address": {"help": "the cluster, HOST:6379; default: RAY_ADDRESS, this machine's"},
    "--json": {"action": "store_true", "help": "print JSON"},
    "--local": {"action": "store_true", "help": "start a Ray here, until Ctrl-C"},
    "--timeout": {"type": float, "default": 3600, "help": "longest wait in seconds, default 3600"},
}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Run one command. Exit code: 0, 78 for a wrong configuration, 1 for another failure."""
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
    """Check whether the deployment fits on the nodes; nothing is started."""
    config = read_config(options.config or demo.CONFIG)
    weights = {name: weights_gib(pool.model) for name, pool in config.pools.items()}
    found = fit_check.check_fit(config, _nodes(options), weights)
    print(json.dumps(dataclasses.asdict(found), indent=2) if options.json else fit_check.render(found))
    return 0 if found.fits else 1


def up(options: argparse.Namespace) -> int:
    """Start the deployment, or update a running one to the configuration."""
    if options.local:
        return up_here(options)
    config = _config(options)
    connect(options.address)
    start(config)
    stop_removed(config, options.timeout)
    return _wait(config, options)


def up_here(options: argparse.Namespace) -> int:
    """Start Ray on this machine, on loopback, and the deployment, until a signal stops them.

    A second signal stops them at once.
    """
    # nohup has SIGHUP ignored.
    signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    config = None
    try:
        _interrupt_on(signals)
        config = on_loopback(_config(options))
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
        _stop_here(config, signals, options.timeout)
    return 0 if ready else 1


def on_loopback(config: ClusterConfig) -> ClusterConfig:
    """`config` with routers that listen on 127.0.0.1, unless it says where."""
    routers = config.routers.model_copy(update={"host": config.routers.host or "127.0.0.1"})
    return config.model_copy(update={"routers": routers})


def _connect_here(signals: Sequence[signal.Signals]) -> None:
    """Start Ray here. A signal is handled afterwards, because Ray cannot be interrupted while it starts."""
    came: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _: came.append(number))
    # Ray's processes inherit the mask: a closed terminal must not end them before the deployment.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    connect(None, local=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    _interrupt_on(signals)
    if came:
        raise KeyboardInterrupt


def _stop_here(config: ClusterConfig | None, signals: Sequence[signal.Signals], seconds: float) -> None:
    try:
        _interrupt_on(signals)
        _print_stopping()
        if config is not None and ray.is_initialized():
            stop(config, seconds)
    except KeyboardInterrupt:
        print("stopping at once", flush=True)
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def _print_stopping() -> None:
    try:
        print("stopping", flush=True)
    except OSError:
        # The terminal is gone; printing must not fail from here on.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)


def _interrupt_on(signals: Sequence[signal.Signals]) -> None:
    """Have the next of `signals` raise KeyboardInterrupt; later ones are ignored."""

    def interrupt(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


def status(options: argparse.Namespace) -> int:
    """Print pools, replicas, routers, nodes and load."""
    config = _config(options)
    connect(options.address)
    seen = look(config)
    print(json.dumps(dataclasses.asdict(seen), indent=2) if options.json else render(seen))
    return 0 if seen.healthy else 1


def scale(options: argparse.Namespace) -> int:
    """Change the number of replicas of pools, until the next `up`."""
    config = scaled(_config(options), dict(options.pool))
    connect(options.address)
    start(config, [name for name, _ in options.pool])
    return _wait(config, options)


def down(options: argparse.Namespace) -> int:
    """Stop the deployment after it has finished the accepted requests. Other applications stay."""
    config = _config(options)
    connect(options.address)
    stop(config, options.timeout)
    return 0


def print_yaml(options: argparse.Namespace) -> int:
    """Print the deployment as a document for `serve deploy`."""
    print(yaml.safe_dump(serve_document(_config(options)), sort_keys=False), end="")
    return 0


def _wait(config: ClusterConfig, options: argparse.Namespace) -> int:
    seen = wait(config, options.timeout)
    print(render(seen))
    return 0 if seen.settled else 1


def _config(options: argparse.Namespace) -> ClusterConfig:
    return demo.make() if options.config is None else read_config(options.config)


def _nodes(options: argparse.Namespace) -> list[Node]:
    """The nodes of the command line, else those of the cluster."""
    if options.nodes is not None:
        return parse_nodes(options.nodes)
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

    def command(name: str, run: Any, *options: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__.split("\n")[0], description=run.__doc__)
        added.set_defaults(run=run)
        added.add_argument("--config", type=Path, help="YAML file of the deployment; default: the demo")
        for option in options:
            added.add_argument(option, **OPTIONS[option])
        return added

    words = "such as 2xcpus=16,gpus=1,gpu_memory=80; default: the cluster's"
    command("plan", plan, "--address", "--json").add_argument("--nodes", nargs="+", help=words)
    command("up", up, "--address", "--timeout", "--local")
    command("status", status, "--address", "--json")
    added = command("scale", scale, "--address", "--timeout")
    added.add_argument("pool", nargs="+", type=_pool_number, metavar="POOL=NUMBER")
    command("down", down, "--address", "--timeout")
    command("yaml", print_yaml)
    return parser
