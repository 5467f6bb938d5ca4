"""`triptych tiny`, `triptych merge`, and `triptych verify` for a folder."""

import functools
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.layouts import KNOWN, MERGED
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import BY_NAME

FOLDER = click.Path(path_type=Path)


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """Have `command` exit with 1 and a message if it raises `CheckpointError` or `OSError`.

    SIGTERM interrupts it like Ctrl-C, so that it removes what is half written.
    """

    @functools.wraps(command)
    def explained(**options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            command(**options)
        except (layout.CheckpointError, OSError) as error:
            raise click.ClickException(str(error)) from None

    return explained


@click.group()
def cli() -> None:
    """Make, merge and verify checkpoints."""


@cli.command()
@click.argument("out", type=FOLDER)
@click.option(
    "--model",
    type=click.Choice([family.name for family in KNOWN]),
    default=KNOWN[0].name,
    show_default=True,
    help="The published model whose layout it has.",
)
@click.option("--nano", is_flag=True, help="Hidden size 64 and one layer, for benchmarks.")
@click.option("--full", is_flag=True, help="The published model's shapes, 7.9 GB; only v4.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other weights.")
@_explained
def tiny(out: Path, model: str, nano: bool, full: bool, seed: int) -> None:
    """Write a small random checkpoint to OUT, in the layout of a published model.

    \b
    Example:
      triptych tiny /tmp/tiny && triptych merge /tmp/tiny /tmp/variants
    """
    from triptych.workers.checkpoints.tiny import FULL, NANO, TINY, write_tiny

    if nano and full:
        raise click.UsageError("--nano and --full are two sizes; give one of them")
    size = NANO if nano else FULL if full else TINY
    write_tiny(BY_NAME[model], out, size, seed)
    click.echo(f"{out}: random weights in the layout of {model}; its vectors have no meaning")


@cli.command()
@click.argument("source", metavar="SRC")
@click.argument("out", type=FOLDER)
@click.option(
    "--pool",
    "pools",
    type=click.Choice([pool for family in MERGED for pool in family.worker_pools]),
    multiple=True,
    help="Only this pool; may be repeated. `shared` is base and adapters for one engine, not merged.",
)
@click.option(
    "--dtype",
    type=click.Choice(["source", "float32"]),
    default="source",
    show_default=True,
    help="Dtype of the variants.",
)
@click.option("--force", is_flag=True, help="Replace existing folders.")
@click.option("--revision", help="Revision of the Hugging Face id.  [default: the one that was tested]")
@click.option("--json", "as_json", is_flag=True, help="Print the variants as JSON.")
@_explained
def merge(
    source: str,
    out: Path,
    pools: Sequence[PoolName],
    dtype: str,
    force: bool,
    revision: str | None,
    as_json: bool,
) -> None:
    """Merge adapters into the base weights, into one variant for each pool.

    SRC is a base with its adapters: a folder as the model is published, or a Hugging Face id. The variants
    are written to OUT/<pool>.

    \b
    Examples:
      triptych merge jinaai/jina-embeddings-v4 /models/jina-embeddings-v4
      triptych merge ./checkpoint ./variants --pool code --dtype float32
    """
    from triptych.workers.checkpoints.hub import resolve_source
    from triptych.workers.checkpoints.merge import merge
    from triptych.workers.checkpoints.variant import read_record

    resolved = resolve_source(source, revision)
    wanted = list(dict.fromkeys(pools or resolved.family.pools))
    merge(
        resolved,
        out,
        wanted,
        float32=dtype == "float32",
        force=force,
        say=functools.partial(click.echo, err=as_json),
    )
    if as_json:
        records = [
            {"path": str(out / pool)} | msgspec.to_builtins(read_record(out / pool)) for pool in wanted
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(records)))


@cli.command()
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--full", is_flag=True, help="Read the weights too, and compare their digest.")
@_explained
def verify(folder: Path, as_json: bool, full: bool) -> None:
    """Print what FOLDER is and whether it can be served."""
    from triptych.workers.checkpoints.inspection import verify

    report = verify(folder, full=full)
    click.echo(report.as_json() if as_json else report.as_text())
    if not report.servable:
        sys.exit(1)


if __name__ == "__main__":
    cli(prog_name="python -m workers.checkpoints")
