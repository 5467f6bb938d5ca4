"""`triptych ray ...`: the commands for a Ray cluster. Only running one imports Ray, which takes seconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click


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
def plan(**options: Any) -> None:
    """Check whether the deployment fits on the nodes; nothing is started.

    Exit status: 0 if it fits, else 1.

    \b
    Examples:
      triptych ray plan --config cluster.yaml --nodes 2xcpus=16,gpus=1,gpu_memory=80 --nodes cpus=8
      triptych ray plan --config cluster.yaml --address 10.0.0.1:6379 --json
    """
    _run("plan", **options)


@cli.command()
@config
@click.option("--local", is_flag=True, help="Start a Ray on this machine first, until Ctrl-C.")
@address
@timeout
def up(local: bool, **options: Any) -> None:
    """Start the deployment, or update a running one to the configuration.

    \b
    Examples:
      triptych ray up --local
      triptych ray up --config cluster.yaml --address 10.0.0.1:6379
    """
    if local and options.pop("address"):
        raise click.UsageError("--local starts a Ray of its own: leave out --address")
    _run("up_here" if local else "up", **options)


@cli.command()
@config
@address
@as_json
def status(**options: Any) -> None:
    """Print pools, replicas, routers, nodes and load.

    Exit status: 0 if every pool serves, else 1.

    \b
    Example:
      triptych ray status --config cluster.yaml --json
    """
    _run("status", **options)


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
def scale(**options: Any) -> None:
    """Change the number of replicas of pools, until the next `up`.

    \b
    Example:
      triptych ray scale --config cluster.yaml code=3 retrieval=8
    """
    _run("scale", **options)


@cli.command()
@config
@address
@timeout
def down(**options: Any) -> None:
    """Stop the deployment after it has finished the accepted requests.

    Other applications on the cluster stay. Exit status: 1 if something is left after the timeout.

    \b
    Example:
      triptych ray down --config cluster.yaml
    """
    _run("down", **options)


@cli.command("yaml")
@config
def print_yaml(**options: Any) -> None:
    """Print the deployment as a document for `serve deploy` and KubeRay.

    \b
    Example:
      triptych ray yaml --config cluster.yaml > serve.yaml
    """
    _run("print_yaml", **options)


def _run(function: str, **options: Any) -> NoReturn:
    """Exit with the status of a function of `command`: 78 for a wrong configuration, 1 for other failures."""
    from triptych.deploy.ray import command
    from triptych.deploy.ray.config import ConfigError
    from triptych.deploy.ray.nodes import NodesError
    from triptych.deploy.ray.running import Failed

    try:
        sys.exit(getattr(command, function)(**options))
    except (ConfigError, NodesError) as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    except Failed as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli(prog_name="triptych ray")
