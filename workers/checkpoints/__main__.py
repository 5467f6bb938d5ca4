"""`triptych tiny`, `triptych merge`, and `triptych verify` for a folder."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec

import click
import msgspec
from tqdm import tqdm

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.space import Advance
from triptych.workers.shared.contract import POOLS, PoolName

FOLDER = click.Path(path_type=Path)
P = ParamSpec("P")


def _explained(command: Callable[P, None]) -> Callable[P, None]:
    """Have `command` exit with 1 and a message if it raises `CheckpointError` or `OSError`."""

    @functools.wraps(command)
    def explained(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (layout.CheckpointError, OSError) as error:
            raise click.ClickException(str(error)) from None

    return explained


@click.group()
def cli() -> None:
    """Make, merge and verify checkpoints."""


@cli.command()
@click.argument("out", type=FOLDER)
@click.option("--nano", is_flag=True, help="Hidden size 64 and one layer, for benchmarks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other weights.")
@_explained
def tiny(out: Path, nano: bool, seed: int) -> None:
    """Write a small random checkpoint to OUT, in the layout of the real one.

    \b
    Example:
      triptych tiny /tmp/tiny && triptych merge /tmp/tiny /tmp/variants
    """
    from triptych.workers.checkpoints.tiny import NANO, TINY, write_tiny

    write_tiny(out, NANO if nano else TINY, seed, progress=_bar)
    click.echo(f"{out}: random weights in the layout of {layout.UPSTREAM_ID}; its vectors have no meaning")


@cli.command()
@click.argument("source", metavar="SRC")
@click.argument("out", type=FOLDER)
@click.option(
    "--task", "tasks", type=click.Choice(POOLS), multiple=True, help="Only this task; may be repeated."
)
@click.option(
    "--dtype",
    type=click.Choice(["source", "float32"]),
    default="source",
    show_default=True,
    help="Dtype of the variants.",
)
@click.option("--force", is_flag=True, help="Replace existing folders.")
@click.option("--revision", help="Revision of the Hugging Face id.", show_default=layout.UPSTREAM_REVISION)
@click.option("--json", "as_json", is_flag=True, help="Print the variants as JSON.")
@_explained
def merge(
    source: str,
    out: Path,
    tasks: Sequence[PoolName],
    dtype: str,
    force: bool,
    revision: str | None,
    as_json: bool,
) -> None:
    """Merge adapters into the base weights, into one variant for each task.

    SRC is a folder in the layout of jina-embeddings-v4, or a Hugging Face id. The variants are written to
    OUT/<task>.

    \b
    Examples:
      triptych merge jinaai/jina-embeddings-v4 /models/jina-embeddings-v4
      triptych merge ./checkpoint ./variants --task code --dtype float32
    """
    from triptych.workers.checkpoints.hub import resolve_source
    from triptych.workers.checkpoints.merge import merge
    from triptych.workers.checkpoints.variant import read_record

    wanted = list(dict.fromkeys(tasks or POOLS))
    merge(
        resolve_source(source, revision),
        out,
        wanted,
        float32=dtype == "float32",
        force=force,
        say=functools.partial(click.echo, err=as_json),
        progress=_bar,
    )
    if as_json:
        records = [
            {"path": str(out / task)} | msgspec.to_builtins(read_record(out / task)) for task in wanted
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

    report = verify(folder, full=full, progress=_bar)
    click.echo(report.as_json() if as_json else report.as_text())
    if not report.servable:
        sys.exit(1)


def _bar(title: str, nbytes: int) -> Advance:
    bar = tqdm(desc=title, total=nbytes, unit="B", unit_scale=True)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= nbytes:
            bar.close()

    return advance


if __name__ == "__main__":
    cli(prog_name="python -m workers.checkpoints")
