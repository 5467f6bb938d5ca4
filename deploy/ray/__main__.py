"""`triptych ray ...`: the commands for a Ray cluster. Only running one imports Ray, which takes seconds."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
import yaml

from triptych.deploy.common.gpu_memory import weights_gib
from triptych.deploy.ray import demo
from triptych.deploy.ray.config import read_config
from triptych.deploy.ray.nodes import parse_nodes
from triptych.deploy.ray.status import Status, render


@click.group()
def cli() -> None:
    """Run a deployment on a Ray cluster.

    A YAML file describes the deployment. Without --config, the commands are about the demo.

    \b
    Examples:
      triptych ray up --local
      triptych ray plan --config cluster.yaml --nodes 2xcpus=16,gpus=1,gpu_memory=80
      triptych ray up --config cluster.yaml --address 10.0.0.1:6379
    """


config = click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of the deployment.  [default: the demo]",
)
address = click.option("--address", help="The cluster, HOST:6379.  [default: RAY_ADDRESS, else here]")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=3600,
    show_default=True,
    help="Longest wait in seconds.",
)


@cli.command()
@config
@click.option(
    "--nodes",
    multiple=True,
    help="Nodes to plan for, such as 2xcpus=16,gpus=1,gpu_memory=80; may be repeated.  "
    "[default: the cluster's]",
)
@address
@as_json
def plan(config_file: Path | None, nodes: Sequence[str], address: str | None, as_json: bool) -> NoReturn:
    """Check whether the deployment fits on the nodes; nothing is started.

    Exit status: 0 if it fits, else 1.

    \b
    Examples:
      triptych ray plan --config cluster.yaml --nodes 2xcpus=16,gpus=1,gpu_memory=80 --nodes cpus=8
      triptych ray plan --config cluster.yaml --address 10.0.0.1:6379 --json
    """
    from triptych.deploy.ray import fit_check, running

    wanted = read_config(config_file or demo.CONFIG)
    weights = {name: weights_gib(pool.model, name) for name, pool in wanted.pools.items()}
    machines = parse_nodes(nodes) if nodes else running.nodes(address)
    found = fit_check.check_fit(wanted, machines, weights)
    print(json.dumps(dataclasses.asdict(found), indent=2) if as_json else fit_check.render(found))
    sys.exit(not found.fits)


@cli.command()
@config
@click.option("--local", is_flag=True, help="Start a Ray on this machine first, until Ctrl-C.")
@address
@timeout
def up(config_file: Path | None, local: bool, address: str | None, timeout: float) -> NoReturn:
    """Start the deployment, or update a running one to the configuration.

    \b
    Examples:
      triptych ray up --local
      triptych ray up --config cluster.yaml --address 10.0.0.1:6379
    """
    if local and address:
        raise click.UsageError("--local starts a Ray of its own: leave out --address")
    if local:
        from triptych.deploy.ray.up_here import up_here

        sys.exit(up_here(config_file, timeout))
    from triptych.deploy.ray import running

    wanted = demo.config_of(config_file)
    running.connect(address)
    running.start(wanted)
    running.stop_removed(wanted, timeout)
    _finish(running.wait(wanted, timeout))


@cli.command()
@config
@address
@as_json
def status(config_file: Path | None, address: str | None, as_json: bool) -> NoReturn:
    """Print pools, replicas, routers, nodes and load.

    Exit status: 0 if every pool serves, else 1.

    \b
    Example:
      triptych ray status --config cluster.yaml --json
    """
    from triptych.deploy.ray import running

    wanted = read_config(config_file or demo.CONFIG)
    running.connect(address)
    seen = running.look(wanted)
    print(json.dumps(dataclasses.asdict(seen), indent=2) if as_json else render(seen))
    sys.exit(not seen.healthy)


def _replicas(_: click.Context, __: click.Parameter, words: Sequence[str]) -> dict[str, int]:
    parts = [word.partition("=") for word in words]
    try:
        return {name: int(number) for name, _, number in parts}
    except ValueError:
        raise click.BadParameter("write POOL=NUMBER, such as code=3") from None


@cli.command()
@click.argument("replicas", nargs=-1, required=True, metavar="POOL=NUMBER...", callback=_replicas)
@config
@address
@timeout
def scale(
    replicas: dict[str, int], config_file: Path | None, address: str | None, timeout: float
) -> NoReturn:
    """Change the number of replicas of pools, until the next `up`.

    \b
    Example:
      triptych ray scale --config cluster.yaml code=3 retrieval=8
    """
    from triptych.deploy.ray import running

    wanted = running.scaled(demo.config_of(config_file), replicas)
    running.connect(address)
    running.start(wanted, [name for name in wanted.pools if name in replicas])
    _finish(running.wait(wanted, timeout))


@cli.command()
@config
@address
@timeout
def down(config_file: Path | None, address: str | None, timeout: float) -> None:
    """Stop the deployment after it has finished the accepted requests.

    Other applications on the cluster stay. Exit status: 1 if something is left after the timeout.

    \b
    Example:
      triptych ray down --config cluster.yaml
    """
    from triptych.deploy.ray import running

    wanted = read_config(config_file or demo.CONFIG)
    running.connect(address)
    running.stop(wanted, timeout)


@cli.command("yaml")
@config
def print_yaml(config_file: Path | None) -> None:
    """Print the deployment as a document for `serve deploy` and KubeRay.

    \b
    Example:
      triptych ray yaml --config cluster.yaml > serve.yaml
    """
    from triptych.deploy.ray.serve_app import serve_document

    print(yaml.safe_dump(serve_document(demo.config_of(config_file)), sort_keys=False), end="")


def _finish(seen: Status) -> NoReturn:
    print(render(seen))
    sys.exit(not seen.settled)


if __name__ == "__main__":
    cli(prog_name="triptych ray")
