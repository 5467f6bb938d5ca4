"""`triptych embed`, and `triptych verify` for a deployment.

Exit status: 0 done; 1 an error on the way, or cosines that differ; 2 not possible as asked; 3 done, but rows
failed; 130 stopped with Ctrl-C.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.problems import Refused, RowFailed
from triptych.router.client.errors import TriptychError
from triptych.router.client.requests import MAX_ITEMS, TASKS

URL = "http://127.0.0.1:8080"
# Not an option, because every user of the machine could see it in the list of processes.
KEY_VARIABLE = "TRIPTYCH_API_KEY"
FAILED, REFUSED, ROWS_FAILED, STOPPED = 1, 2, 3, 130
CONTINUES = "The same command continues"

url = click.option("--url", default=URL, help="Address of the deployment.")
defaults = {"show_default": True}
epilog = f"An API key is read from the environment variable {KEY_VARIABLE}."


def key_of_environment() -> str | None:
    """The API key; an empty one counts as missing."""
    return os.environ.get(KEY_VARIABLE) or None


@click.group()
def cli() -> None:
    """Use a running deployment."""


@cli.command(epilog=epilog, context_settings=defaults)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@url
@click.option("--column", default="text", help="Field or column to embed.")
@click.option("--id", metavar="COLUMN", help="Field or column to copy into a .parquet OUT as `id`.")
@click.option("--model", help="Model to embed with.  [default: the first one that is served]")
@click.option(
    "--task", type=click.Choice(TASKS), default="retrieval.passage", help="What the vectors are for."
)
@click.option(
    "--dimensions", type=click.IntRange(1, 2048), metavar="N", help="Values per vector.  [default: all]"
)
@click.option("--truncate", is_flag=True, help="Truncate texts that are too long instead of refusing them.")
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", help="Dtype of OUT.")
@click.option("--batch", type=click.IntRange(1, MAX_ITEMS), default=256, help="Rows per request.")
@click.option("--concurrency", type=click.IntRange(1), default=8, help="Concurrent requests.")
@click.option("--timeout", type=float, default=300, help="Seconds per request.")
@click.option(
    "--max-wait", type=float, default=600, help="Seconds to wait for a server that is busy or down."
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    help="At a row that cannot be embedded: stop, or list it in OUT.failed.jsonl.",
)
def embed(
    source: Path,
    out: Path,
    url: str,
    truncate: bool,
    on_error: str,
    timeout: float,
    max_wait: float,
    **options: Any,
) -> None:
    """Embed a whole file; after a stop, the same command continues.

    IN is .jsonl, .ndjson, .json, .csv, .parquet, or text with one input per line. OUT is .npy with one row
    per input, or .parquet with row numbers.

    \b
    Examples:
      triptych embed corpus.jsonl vectors.npy --task retrieval.passage
      triptych embed corpus.csv vectors.parquet --column body --id key --dimensions 512
    """
    from triptych.router.client.bulk.run import run
    from triptych.router.client.clients import AsyncClient

    job = Job(source=source, out=out, truncate=truncate or None, skip=on_error == "skip", **options)
    started = time.monotonic()
    try:
        key = key_of_environment()
        done = run(job, AsyncClient(url, key, timeout=timeout, retries=sys.maxsize, max_wait=max_wait))
    except RowFailed as error:
        advice = "--on-error skip makes such rows NaN; --truncate truncates texts that are too long."
        _exit(f"error: {error}\nFinished batches are kept. {advice}", FAILED)
    except (TriptychError, OSError) as error:
        _exit(f"error: {error}\nFinished batches are kept. {CONTINUES}.", FAILED)
    except (Refused, ValueError) as error:
        _exit(f"error: {error}", REFUSED)
    except KeyboardInterrupt:
        _exit(f"stopped; {CONTINUES}", STOPPED)

    seconds = time.monotonic() - started
    now = done.rows - done.earlier
    said = f"{done.rows} rows in {out}: {now} now, in {seconds:.1f} s ({now / seconds:.1f} items/s)"
    click.echo(said, err=True)
    if done.failures:
        count, where = len(done.failures), job.beside("failed.jsonl")
        _exit(f"{count} of them failed and are NaN; {where} lists them with reasons", ROWS_FAILED)


@cli.command(epilog=epilog, context_settings=defaults)
@url
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(url: str, as_json: bool) -> None:
    """Compare a deployment's vectors with published cosines."""
    from triptych.router.client.clients import Client
    from triptych.router.client.verify import measure, report

    try:
        with Client(url, key_of_environment(), max_wait=20) as client:
            rows = measure(client)
    except (TriptychError, OSError) as error:
        _exit(f"error: {error}", FAILED)
    except ValueError as error:
        _exit(f"error: {error}", REFUSED)
    passes = all(row.passes for row in rows)
    document = {"passes": passes, "pairs": [row._asdict() for row in rows]}
    click.echo(json.dumps(document, indent=2) if as_json else report(rows))
    if not passes:
        sys.exit(FAILED)


def _exit(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)


if __name__ == "__main__":
    cli(prog_name="python -m router.client")
