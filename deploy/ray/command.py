"""What `triptych ray` runs, one function for each command. They return exit codes."""

import dataclasses
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import ray
import yaml

from triptych.deploy.common.gpu_memory import weights_gib
from triptych.deploy.common.variants import DEMO_WARNING
from triptych.deploy.ray import demo, fit_check
from triptych.deploy.ray.config import ClusterConfig, read_config
from triptych.deploy.ray.nodes import Node, nodes_of_cluster, parse_nodes
from triptych.deploy.ray.running import connect, look, scaled, start, stop, stop_removed, wait
from triptych.deploy.ray.serve_app import serve_document
from triptych.deploy.ray.status import render

TRY_IT = """
{notice}This Ray ends with this command: Ctrl-C. From another terminal:
  triptych ray status
  curl {url}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'
"""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def plan(config_file: Path | None, nodes: Sequence[str], address: str | None, as_json: bool) -> int:
    """Print whether the deployment fits on `nodes`, by default the cluster's."""
    config = read_config(config_file or demo.CONFIG)
    weights = {name: weights_gib(pool.model, name) for name, pool in config.pools.items()}
    found = fit_check.check_fit(config, _nodes(nodes, address), weights)
    print(json.dumps(dataclasses.asdict(found), indent=2) if as_json else fit_check.render(found))
    return 0 if found.fits else 1


def up(config_file: Path | None, address: str | None, timeout: float) -> int:
    """Start the deployment, or update a running one to the configuration."""
    config = _config(config_file)
    connect(address)
    start(config)
    stop_removed(config, timeout)
    return _wait(config, timeout)


def up_here(config_file: Path | None, timeout: float) -> int:
    """Start Ray on this machine, on loopback, and the deployment, until a signal stops them.

    A second signal stops them at once.
    """
    # nohup has SIGHUP ignored.
    signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    config = None
    try:
        _interrupt_on(signals)
        config = on_loopback(_config(config_file))
        _connect_here(signals)
        start(config)
        seen = wait(config, timeout)
        print(render(seen))
        if ready := seen.settled:
            notice = "" if config_file else f"{DEMO_WARNING}\n"
            print(TRY_IT.format(url=seen.routers[0], notice=notice), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        ready = True
    finally:
        _stop_here(config, signals, timeout)
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


def status(config_file: Path | None, address: str | None, as_json: bool) -> int:
    """Print pools, replicas, routers, nodes and load."""
    config = _config(config_file)
    connect(address)
    seen = look(config)
    print(json.dumps(dataclasses.asdict(seen), indent=2) if as_json else render(seen))
    return 0 if seen.healthy else 1


def scale(config_file: Path | None, replicas: dict[str, int], address: str | None, timeout: float) -> int:
    """Change the number of replicas of pools, until the next `up`."""
    config = scaled(_config(config_file), replicas)
    connect(address)
    start(config, [name for name in config.pools if name in replicas])
    return _wait(config, timeout)


def down(config_file: Path | None, address: str | None, timeout: float) -> int:
    """Stop the deployment after it has finished the accepted requests. Other applications stay."""
    config = _config(config_file)
    connect(address)
    stop(config, timeout)
    return 0


def print_yaml(config_file: Path | None) -> int:
    """Print the deployment as a document for `serve deploy`."""
    print(yaml.safe_dump(serve_document(_config(config_file)), sort_keys=False), end="")
    return 0


def _wait(config: ClusterConfig, timeout: float) -> int:
    seen = wait(config, timeout)
    print(render(seen))
    return 0 if seen.settled else 1


def _config(file: Path | None) -> ClusterConfig:
    return demo.make() if file is None else read_config(file)


def _nodes(nodes: Sequence[str], address: str | None) -> list[Node]:
    """The nodes of the command line, else those of the cluster."""
    if nodes:
        return parse_nodes(nodes)
    connect(address)
    return nodes_of_cluster(ray.nodes())  # type: ignore[no-untyped-call]
